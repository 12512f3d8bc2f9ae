// The wasm port as a board: its REPL on standard streams. Usage: node wasm.mjs MICROPYTHON.MJS
import { writeSync } from 'fs';

const { loadMicroPython } = await import(process.argv[2]);
const CTRL_A = '\x01', CTRL_B = '\x02';
const RAW_PASTE = '\x05A\x01';
let port, isMute = false, isRaw = false, asked = '';

function write(text) {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length;) {
    try {
      at += writeSync(1, bytes, at);
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
}

async function start() {
  const stdout = (bytes) => { if (!isMute) write(bytes); };
  port = await loadMicroPython({ heapsize: 256 * 1024, linebuffer: false, stdout });
  port.replInit();
}

async function type(character) {
  if (character === CTRL_A) isRaw = true;
  if (character === CTRL_B) isRaw = false;
  if (!port.replProcessChar(character.charCodeAt(0))) return;
  // Ctrl-D at a prompt: a soft reset, files are lost.
  write('MPY: soft reboot\r\n');
  isMute = isRaw;
  await start();
  isMute = false;
  if (isRaw) port.replProcessChar(CTRL_A.charCodeAt(0));
}

await start();
for await (const chunk of process.stdin) {
  for (const byte of chunk) {
    const character = String.fromCharCode(byte);
    // The port says that it can paste, and cannot (it would have to wait for the line).
    if (isRaw && RAW_PASTE.startsWith(asked + character)) {
      asked += character;
      if (asked === RAW_PASTE) {
        asked = '';
        write('R\x00');
      }
      continue;
    }
    const late = asked + character;
    asked = '';
    for (const one of late) await type(one);
  }
}
