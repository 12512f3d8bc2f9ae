// Runs a program on MicroPython's wasm port with a folder's files as its own, at /app.
// Usage: node wasm.mjs MICROPYTHON.MJS TREE PROGRAM [ARGUMENT…]
import { readFileSync, readdirSync, statSync, writeSync } from 'fs';
import { join } from 'path';

const [module, tree, program, ...args] = process.argv.slice(2);

function write(bytes) {
  for (let at = 0; at < bytes.length;) {
    try {
      at += writeSync(1, bytes, at);
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
}

const { loadMicroPython } = await import(module);
const port = await loadMicroPython({ heapsize: 8 * 1024 * 1024, linebuffer: false, stdout: write, stderr: write });

function copy(from, to) {
  port.FS.mkdir(to);
  for (const name of readdirSync(from)) {
    const path = join(from, name);
    if (statSync(path).isDirectory()) copy(path, `${to}/${name}`);
    else port.FS.writeFile(`${to}/${name}`, readFileSync(path));
  }
}

copy(tree, '/app');
try {
  port.globals.set('_argv', JSON.stringify(args));
  await port.runPythonAsync(readFileSync(program, 'utf8'));
} catch (error) {
  write(Buffer.from(`${error.message}\n`));
  process.exit(1);
}
process.exit(port.globals.get('_exit_code') ?? 0);
