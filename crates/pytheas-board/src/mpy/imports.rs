//! What a module imports, read from its byte code.
//!
//! The compiler always puts level, names and `IMPORT_NAME` behind each other, so a stack of the
//! constants that were just pushed is enough; whatever is not a constant empties it. The same stack
//! shows the arguments of `__import__("…")` and `importlib.import_module("…")` when they are constants.

use super::{
    Const, Kind, Mpy,
    code::Code,
    opcode::{self, Instruction},
};

/// One import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The module's dotted name; empty for `from . import x`.
    pub module: String,
    /// Dots before the name: 0 for an absolute import.
    pub level: usize,
    /// The names that are taken from it (each may be a module, too); empty for `import a.b`.
    pub names: Vec<String>,
    /// `from a import *`
    pub star: bool,
    /// A call of `__import__` or `import_module`.
    pub by_call: bool,
    /// Inside a `try` that has an `except`: the program may do without.
    pub in_try: bool,
    /// The function it stands in; `<module>` when the module's own code does it.
    pub function: String,
    /// Its line; none when the lines were left out.
    pub line: Option<usize>,
}

/// An import whose name byte code does not show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unresolved {
    /// The function it stands in; for native code the function that may import anything.
    pub function: String,
    /// Its line; none when the lines were left out or the code is native.
    pub line: Option<usize>,
    /// Native code, which hides its imports: look into the source.
    pub native: bool,
}

/// All imports of a module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Imports {
    /// Those whose names are known, in the order of the code.
    pub found: Vec<Import>,
    /// Calls with names that are computed, and functions of native code.
    pub unresolved: Vec<Unresolved>,
}

/// What is known of a value on the stack.
enum Known<'a> {
    Int(i64),
    None,
    Text(&'a [u8]),
    Texts(Vec<&'a [u8]>),
    /// `__import__` or `import_module`; the number of the call that waits for its arguments.
    Importer(usize),
    Other,
}

impl Mpy<'_> {
    /// What the module imports, in functions that are never called, too.
    pub fn imports(&self) -> Imports {
        let mut imports = Imports::default();
        for (path, code) in self.root.walk() {
            let function = self.function_name(code, &path);
            if code.kind == Kind::Bytecode {
                Scan::of(self, code, function).run(&mut imports);
            } else {
                imports.unresolved.push(Unresolved {
                    function,
                    line: None,
                    native: true,
                });
            }
        }
        imports
    }

    /// The name of a function as tracebacks show it.
    pub(super) fn function_name(&self, code: &Code<'_>, path: &[usize]) -> String {
        match code
            .prelude
            .as_ref()
            .and_then(|prelude| prelude.names.first())
        {
            Some(name) => self.text(*name),
            None if path.is_empty() => "<module>".to_owned(),
            None => "<native>".to_owned(),
        }
    }
}

struct Scan<'m, 'a> {
    mpy: &'m Mpy<'a>,
    code: &'m Code<'a>,
    function: String,
    stack: Vec<Known<'a>>,
    /// Where protected code ends.
    try_until: usize,
    /// Calls of importers: where, until their argument is known.
    waiting: Vec<Option<usize>>,
}

impl<'m, 'a> Scan<'m, 'a> {
    fn of(mpy: &'m Mpy<'a>, code: &'m Code<'a>, function: String) -> Self {
        Self {
            mpy,
            code,
            function,
            stack: Vec::new(),
            try_until: 0,
            waiting: Vec::new(),
        }
    }

    fn run(mut self, imports: &mut Imports) {
        for instruction in self.code.instructions() {
            self.step(instruction, &mut imports.found);
        }
        for offset in self.waiting.iter().copied().flatten() {
            imports.unresolved.push(Unresolved {
                function: self.function.clone(),
                line: self.line(offset),
                native: false,
            });
        }
    }

    fn line(&self, offset: usize) -> Option<usize> {
        let prelude = self.code.prelude.as_ref()?;
        prelude.has_lines().then(|| prelude.line(offset))
    }

    fn qstr(&self, instruction: Instruction) -> &'a [u8] {
        let at = usize::try_from(instruction.argument).unwrap_or(usize::MAX);
        self.mpy.qstrs.get(at).copied().unwrap_or_default()
    }

    fn step(&mut self, instruction: Instruction, found: &mut Vec<Import>) {
        let Instruction {
            offset,
            size,
            opcode,
            argument,
        } = instruction;
        let count = usize::try_from(argument).unwrap_or(usize::MAX);
        if let Some(value) = instruction.small_int() {
            self.stack.push(Known::Int(value));
            return;
        }
        match opcode {
            opcode::LOAD_CONST_NONE => self.stack.push(Known::None),
            opcode::LOAD_CONST_STRING => self.stack.push(Known::Text(self.qstr(instruction))),
            opcode::LOAD_CONST_OBJ => {
                let known = self.mpy.objects.get(count).map_or(Known::Other, constant);
                self.stack.push(known);
            }
            // Locals, cells, `True` and `False`: values that are there but not known.
            0x50..=0x53 | 0x24 | 0x25 | 0xb0..=0xbf => self.stack.push(Known::Other),
            opcode::LOAD_NAME | opcode::LOAD_GLOBAL => {
                let known = match self.qstr(instruction) {
                    b"__import__" | b"import_module" => self.importer(offset),
                    _ => Known::Other,
                };
                self.stack.push(known);
            }
            opcode::LOAD_ATTR => {
                let known = match self.qstr(instruction) {
                    b"import_module" => self.importer(offset),
                    _ => Known::Other,
                };
                self.stack.pop();
                self.stack.push(known);
            }
            opcode::LOAD_METHOD => {
                let known = match self.qstr(instruction) {
                    b"import_module" | b"__import__" => self.importer(offset),
                    _ => Known::Other,
                };
                self.stack.pop();
                self.stack.extend([known, Known::Other]);
            }
            opcode::BUILD_TUPLE if count <= self.stack.len() => {
                let items = self.stack.split_off(self.stack.len() - count);
                let texts = items.into_iter().map(|item| match item {
                    Known::Text(text) => Some(text),
                    _ => None,
                });
                let texts: Option<Vec<_>> = texts.collect();
                self.stack.push(texts.map_or(Known::Other, Known::Texts));
            }
            opcode::SETUP_EXCEPT => {
                self.stack.clear();
                self.try_until = self.try_until.max((offset + size).saturating_add(count));
            }
            opcode::IMPORT_NAME => {
                let names = self.stack.pop();
                let level = self.stack.pop();
                let module = self.qstr(instruction);
                found.push(self.import(offset, module, level.as_ref(), names.as_ref(), false));
                self.stack.clear();
            }
            opcode::IMPORT_STAR | opcode::IMPORT_FROM => self.stack.clear(),
            opcode::CALL_FUNCTION | opcode::CALL_METHOD => self.call(instruction, found),
            _ => self.stack.clear(),
        }
    }

    fn importer(&mut self, offset: usize) -> Known<'a> {
        self.waiting.push(Some(offset));
        Known::Importer(self.waiting.len() - 1)
    }

    /// `__import__(name, globals, locals, names, level)` or `import_module(name)`.
    fn call(&mut self, instruction: Instruction, found: &mut Vec<Import>) {
        let count = usize::try_from(instruction.argument).unwrap_or(usize::MAX);
        let (positional, keywords) = (count & 0xff, count >> 8 & 0xff);
        let own = usize::from(instruction.opcode == opcode::CALL_METHOD);
        let taken = 1 + own + positional + 2 * keywords;
        let Some(bottom) = self.stack.len().checked_sub(taken) else {
            self.stack.clear();
            return;
        };
        let call = self.stack.split_off(bottom);
        let arguments = &call[1 + own..];
        if let (Known::Importer(number), Some(Known::Text(name))) = (&call[0], arguments.first())
            && positional > 0
        {
            let dots = name.iter().take_while(|byte| **byte == b'.').count();
            let level = match arguments[..positional].get(4) {
                Some(Known::Int(level)) => Known::Int(*level),
                _ => Known::Int(i64::try_from(dots).unwrap_or(0)),
            };
            let names = arguments[..positional].get(3);
            let offset = instruction.offset;
            found.push(self.import(offset, &name[dots..], Some(&level), names, true));
            self.waiting[*number] = None;
        }
        self.stack.push(Known::Other);
    }

    fn import(
        &self,
        offset: usize,
        module: &[u8],
        level: Option<&Known<'_>>,
        names: Option<&Known<'_>>,
        by_call: bool,
    ) -> Import {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let names: Vec<String> = match names {
            Some(Known::Texts(names)) => names.iter().map(|name| text(name)).collect(),
            _ => Vec::new(),
        };
        let star = names == ["*"];
        Import {
            module: text(module),
            level: match level {
                Some(Known::Int(level)) => usize::try_from(*level).unwrap_or(0),
                _ => 0,
            },
            names: if star { Vec::new() } else { names },
            star,
            by_call,
            in_try: offset < self.try_until,
            function: self.function.clone(),
            line: self.line(offset),
        }
    }
}

fn constant<'a>(object: &Const<'a>) -> Known<'a> {
    match object {
        Const::Str(text) => Known::Text(text),
        Const::None => Known::None,
        Const::Tuple(items) => {
            let texts = items.iter().map(|item| match item {
                Const::Str(text) => Some(*text),
                _ => None,
            });
            texts
                .collect::<Option<_>>()
                .map_or(Known::Other, Known::Texts)
        }
        _ => Known::Other,
    }
}
