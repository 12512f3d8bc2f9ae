//! What a module imports, told from its source: `import`, `from … import`, `importlib` and
//! `__import__` with names that stand in the source, and those that cannot be decided.
//!
//! Blocks are followed by indentation, so that each import is known to be unconditional, guarded
//! (`try`, `if`), lazy (inside a function), for type checkers only, or for a run as a script.

use super::tokens::{Line, Token, lines};

/// When an import happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// When the module is imported.
    Always,
    /// Inside `try`, `except`, `if`, `else`, `with` …: it may not be there.
    Guarded,
    /// Inside a function: when that is called.
    Lazy,
    /// Under `if TYPE_CHECKING`: never at run time.
    TypeChecking,
    /// Under `if __name__ == "__main__"`: only when the module is the program.
    AsProgram,
}

/// What is imported; `level` counts the leading dots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// `import a.b`.
    Module {
        /// The dotted name.
        name: String,
    },
    /// `from a import b, c`; a star gives `*`.
    Names {
        /// Leading dots.
        level: usize,
        /// What follows them.
        name: String,
        /// The names imported.
        names: Vec<String>,
    },
    /// Any module of `package` whose last name begins with `start`.
    AnyOf {
        /// Leading dots.
        level: usize,
        /// What follows them.
        package: String,
        /// How the last name begins.
        start: String,
    },
}

/// One import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// What.
    pub what: What,
    /// Line, from 1.
    pub line: u32,
    /// When.
    pub when: When,
    /// In the body of a `try`, or where errors are suppressed: it may fail.
    pub tried: bool,
}

/// What a module's source says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// Its imports.
    pub imports: Vec<Import>,
    /// Calls that import something only known at run time: line and call.
    pub undecided: Vec<(u32, String)>,
    /// Strings that could be names of modules or of entry-point groups, with their lines.
    pub words: Vec<(String, u32)>,
    /// Modules after `"-m"`: run by a Python that the program starts.
    pub run: Vec<(String, u32)>,
    /// The strings of `__all__`.
    pub exported: Vec<String>,
    /// It defines `__getattr__`, or calls a lazy loader: its submodules are named in strings.
    pub is_lazy: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Plain,
    Guard,
    /// A guard that goes on when its body fails.
    Try,
    Function,
    TypeChecking,
    AsProgram,
}

/// Reads `source`.
pub fn read(source: &str) -> Source {
    let mut found = Source::default();
    let mut blocks: Vec<(usize, Block)> = Vec::new();
    for line in lines(source) {
        while blocks
            .last()
            .is_some_and(|(indent, _)| *indent >= line.indent)
        {
            blocks.pop();
        }
        let header = header(&line);
        if let Some(block) = header {
            blocks.push((line.indent, block));
        }
        let when = when(&blocks);
        let before = found.imports.len();
        if line.indent == 0 && is_name(&line, 0, "def") && is_name(&line, 1, "__getattr__") {
            found.is_lazy = true;
        }
        statements(&line, when, &mut found);
        calls(&line, when, &mut found);
        if blocks.iter().any(|(_, block)| *block == Block::Try) {
            for import in &mut found.imports[before..] {
                import.tried = true;
            }
        }
        run(&line, &mut found);
        words(&line, &mut found);
    }
    found
}

fn name_at<'a>(line: &Line<'a>, at: usize) -> Option<&'a str> {
    match line.tokens.get(at) {
        Some((Token::Name(name), _)) => Some(name),
        _ => None,
    }
}

fn is_name(line: &Line<'_>, at: usize, name: &str) -> bool {
    name_at(line, at) == Some(name)
}

fn is_op(line: &Line<'_>, at: usize, op: char) -> bool {
    matches!(line.tokens.get(at), Some((Token::Op(c), _)) if *c == op)
}

fn text_at<'a>(line: &Line<'a>, at: usize) -> Option<(&'a str, bool)> {
    match line.tokens.get(at) {
        Some((Token::Text { value, is_format }, _)) => Some((value, *is_format)),
        _ => None,
    }
}

/// The kind of the block that the line opens; none when it opens none.
fn header(line: &Line<'_>) -> Option<Block> {
    let first = name_at(line, 0)?;
    match first {
        "def" => Some(Block::Function),
        "async" if is_name(line, 1, "def") => Some(Block::Function),
        "class" => Some(Block::Plain),
        "if" | "elif" => {
            let has = |word: &str| (0..line.tokens.len()).any(|at| is_name(line, at, word));
            let is_main = (0..line.tokens.len())
                .any(|at| text_at(line, at).is_some_and(|(text, _)| text == "__main__"));
            if has("TYPE_CHECKING") && !has("not") && !has("or") {
                Some(Block::TypeChecking)
            } else if has("__name__") && is_main && first == "if" {
                Some(Block::AsProgram)
            } else {
                Some(Block::Guard)
            }
        }
        "try" | "except" | "else" | "finally" | "with" | "for" | "while" | "match" | "case"
            if line
                .tokens
                .iter()
                .any(|(token, _)| *token == Token::Op(':')) =>
        {
            let suppresses = || (0..line.tokens.len()).any(|at| is_name(line, at, "suppress"));
            Some(match first {
                "try" => Block::Try,
                "with" if suppresses() => Block::Try,
                _ => Block::Guard,
            })
        }
        _ => None,
    }
}

fn when(blocks: &[(usize, Block)]) -> When {
    let has = |wanted: Block| blocks.iter().any(|(_, block)| *block == wanted);
    if has(Block::TypeChecking) {
        When::TypeChecking
    } else if has(Block::AsProgram) {
        When::AsProgram
    } else if has(Block::Function) {
        When::Lazy
    } else if has(Block::Guard) || has(Block::Try) {
        When::Guarded
    } else {
        When::Always
    }
}

/// `import` and `from` at the beginning of a statement: of the line, after `;`, or after the `:`
/// of a block in one line.
fn statements(line: &Line<'_>, when: When, found: &mut Source) {
    let mut depth = 0_usize;
    let mut is_start = true;
    for (at, (token, number)) in line.tokens.iter().enumerate() {
        match token {
            Token::Op('(' | '[' | '{') => depth += 1,
            Token::Op(')' | ']' | '}') => depth = depth.saturating_sub(1),
            Token::Name("import") if is_start && depth == 0 => {
                import(line, at + 1, *number, when, found);
            }
            Token::Name("from") if is_start && depth == 0 => {
                from(line, at + 1, *number, when, found);
            }
            // `lazy import` and `lazy from` (PEP 810).
            Token::Name("lazy") if is_start && depth == 0 => continue,
            _ => {}
        }
        is_start = depth == 0 && matches!(token, Token::Op(';' | ':'));
    }
}

/// A dotted name from `at`; the name and where it ends.
fn dotted(line: &Line<'_>, mut at: usize) -> Option<(String, usize)> {
    let mut name = name_at(line, at)?.to_owned();
    at += 1;
    while is_op(line, at, '.') {
        name.push('.');
        name.push_str(name_at(line, at + 1)?);
        at += 2;
    }
    Some((name, at))
}

fn import(line: &Line<'_>, mut at: usize, number: u32, when: When, found: &mut Source) {
    while let Some((name, end)) = dotted(line, at) {
        let what = What::Module { name };
        found.imports.push(Import {
            what,
            line: number,
            when,
            tried: false,
        });
        at = end;
        if is_name(line, at, "as") {
            at += 2;
        }
        if !is_op(line, at, ',') {
            return;
        }
        at += 1;
    }
}

fn from(line: &Line<'_>, mut at: usize, number: u32, when: When, found: &mut Source) {
    let mut level = 0;
    while is_op(line, at, '.') {
        level += 1;
        at += 1;
    }
    let name = if is_name(line, at, "import") {
        String::new()
    } else {
        let Some((name, end)) = dotted(line, at) else {
            return;
        };
        at = end;
        name
    };
    if !is_name(line, at, "import") {
        return;
    }
    at += 1;
    let mut names = Vec::new();
    while let Some((token, _)) = line.tokens.get(at) {
        match token {
            Token::Op('(' | ')' | ',') => {}
            Token::Op('*') => names.push("*".to_owned()),
            Token::Name("as") => at += 1,
            Token::Name(name) => names.push((*name).to_owned()),
            _ => break,
        }
        at += 1;
    }
    let what = What::Names { level, name, names };
    found.imports.push(Import {
        what,
        line: number,
        when,
        tried: false,
    });
}

/// Calls that import: `import_module`, `__import__`, `run_module`, `iter_modules`.
fn calls(line: &Line<'_>, when: When, found: &mut Source) {
    for at in 0..line.tokens.len() {
        let Some(name) = name_at(line, at) else {
            continue;
        };
        let is_definition = at > 0 && is_name(line, at - 1, "def");
        if is_definition || !is_op(line, at + 1, '(') {
            continue;
        }
        let number = line.tokens[at].1;
        match name {
            "import_module" | "__import__" | "run_module" => {
                call(line, at, number, when, found);
            }
            "iter_modules" | "walk_packages" => {
                let own = (at + 2..(at + 6).min(line.tokens.len()))
                    .any(|at| is_name(line, at, "__path__"))
                    && !is_op(line, at + 3, '.');
                if own {
                    let what = What::AnyOf {
                        level: 1,
                        package: String::new(),
                        start: String::new(),
                    };
                    found.imports.push(Import {
                        what,
                        line: number,
                        when,
                        tried: false,
                    });
                } else {
                    found.undecided.push((number, format!("{name}(…)")));
                }
            }
            "attach" | "attach_stub" | "LazyModule" | "_LazyModule" | "LazyImporter" => {
                found.is_lazy = true;
            }
            _ => {}
        }
    }
}

fn call(line: &Line<'_>, at: usize, number: u32, when: When, found: &mut Source) {
    let function = name_at(line, at).unwrap_or_default();
    let undecided = |found: &mut Source| {
        if when != When::TypeChecking {
            let argument = name_at(line, at + 2).unwrap_or("…");
            found
                .undecided
                .push((number, format!("{function}({argument})")));
        }
    };
    let Some((text, is_format)) = text_at(line, at + 2) else {
        return undecided(found);
    };
    let level = text.bytes().take_while(|byte| *byte == b'.').count();
    let plain = &text[level..];
    // Relative names begin at `package`: a string, or else what is nearly always there,
    // `__name__` or `__package__`.
    let (level, base) = match (level, is_op(line, at + 3, ',')) {
        (0, _) => (0, String::new()),
        (level, true) => {
            let argument = if is_name(line, at + 4, "package") {
                at + 6
            } else {
                at + 4
            };
            match text_at(line, argument) {
                Some((package, false)) => {
                    let mut parts: Vec<&str> = package.split('.').collect();
                    parts.truncate(parts.len() + 1 - level.min(parts.len()));
                    (0, parts.join("."))
                }
                _ => (level, String::new()),
            }
        }
        (level, false) => (level, String::new()),
    };
    let join = |name: &str| match (base.as_str(), name) {
        ("", name) => name.to_owned(),
        (base, "") => base.to_owned(),
        (base, name) => format!("{base}.{name}"),
    };
    let is_whole = !is_format && (is_op(line, at + 3, ')') || is_op(line, at + 3, ','));
    if is_whole && is_module_name(plain) {
        let name = join(plain);
        let what = if level == 0 {
            What::Module { name }
        } else {
            // `from . import x` reaches the submodule `x`.
            let (name, last) = name.rsplit_once('.').unwrap_or(("", &name));
            What::Names {
                level,
                name: name.to_owned(),
                names: vec![last.to_owned()],
            }
        };
        found.imports.push(Import {
            what,
            line: number,
            when,
            tried: false,
        });
        return;
    }
    // The beginning of the name stands there: any module that begins so.
    let fixed = plain.split(['{', '%']).next().unwrap_or_default();
    match fixed.rsplit_once('.') {
        Some((package, start)) if is_module_name(package) => {
            let what = What::AnyOf {
                level,
                package: join(package),
                start: start.to_owned(),
            };
            found.imports.push(Import {
                what,
                line: number,
                when,
                tried: false,
            });
        }
        None if level > 0 || !base.is_empty() => {
            let what = What::AnyOf {
                level,
                package: join(""),
                start: fixed.to_owned(),
            };
            found.imports.push(Import {
                what,
                line: number,
                when,
                tried: false,
            });
        }
        _ => undecided(found),
    }
}

/// `[sys.executable, "-m", "venv"]`.
fn run(line: &Line<'_>, found: &mut Source) {
    for at in 0..line.tokens.len() {
        if text_at(line, at) == Some(("-m", false))
            && is_op(line, at + 1, ',')
            && let Some((name, false)) = text_at(line, at + 2)
            && is_module_name(name)
        {
            found.run.push((name.to_owned(), line.tokens[at].1));
        }
    }
}

/// Whether the text is a dotted name.
pub fn is_module_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() < 120
        && text.split('.').all(|part| {
            part.starts_with(|c: char| c.is_alphabetic() || c == '_')
                && part.chars().all(|c| c.is_alphanumeric() || c == '_')
        })
}

/// Strings that could name a module, a group or a file, and `__all__`.
fn words(line: &Line<'_>, found: &mut Source) {
    let is_all = is_name(line, 0, "__all__");
    if line.tokens.len() == 1 {
        return; // a doc string
    }
    for (token, number) in &line.tokens {
        let Token::Text { value, is_format } = token else {
            continue;
        };
        // Of `f"{folder}/worker.py"`, the file.
        let value = match (is_format, value.rsplit_once('}')) {
            (false, _) => *value,
            (true, Some((_, rest))) if rest.starts_with('/') => rest,
            (true, _) => continue,
        };
        if is_all {
            found.exported.push(value.to_owned());
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '-' | '/');
        // The object of an entry point as it is written: `name = module:object`.
        let value = match value.split_once('=') {
            Some((_, object)) if object.contains(':') => object.trim(),
            _ => value,
        };
        if value.len() < 120 && !value.is_empty() && value.chars().all(fits) {
            found.words.push((value.to_owned(), *number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expected: &[&str]) {
        let read = read(source);
        let mut shown: Vec<String> = read
            .imports
            .iter()
            .map(|import| {
                let what = match &import.what {
                    What::Module { name } => name.clone(),
                    What::Names { level, name, names } => {
                        format!("{}{name}[{}]", ".".repeat(*level), names.join(" "))
                    }
                    What::AnyOf {
                        level,
                        package,
                        start,
                    } => {
                        format!("{}{package}/{start}*", ".".repeat(*level))
                    }
                };
                format!("{} {what} {:?}", import.line, import.when)
            })
            .collect();
        shown.extend(
            read.undecided
                .iter()
                .map(|(line, call)| format!("{line} ?{call}")),
        );
        assert_eq!(shown, expected, "{source}");
    }

    #[test]
    fn statements_are_found_wherever_they_stand() {
        check("import a.b as c, d\n", &["1 a.b Always", "1 d Always"]);
        check(
            "from a.b import c as x, (d)\nfrom . import e\nfrom ..f import *\n",
            &["1 a.b[c d] Always", "2 .[e] Always", "3 ..f[*] Always"],
        );
        check("x = 1; import a; import b\n", &["1 a Always", "1 b Always"]);
        check(
            "try: import a\nexcept ImportError: a = None\n",
            &["1 a Guarded"],
        );
        check(
            "from a import (\n    b,  # comment\n    c,\n)\n",
            &["1 a[b c] Always"],
        );
        check("from .\\\n  a import b\n", &["1 .a[b] Always"]);
        check("raise X from error\nyield from import_\n", &[]);
        check("'import a'\n\"\"\"\nimport b\n\"\"\"\n# import c\n", &[]);
    }

    #[test]
    fn blocks_say_when_an_import_happens() {
        check(
            "def f():\n    import a\nimport b\n",
            &["2 a Lazy", "3 b Always"],
        );
        check(
            "if TYPE_CHECKING:\n    import a\nelse:\n    import b\n",
            &["2 a TypeChecking", "4 b Guarded"],
        );
        check(
            "if typing.TYPE_CHECKING:\n    if x:\n        import a\nimport b\n",
            &["3 a TypeChecking", "4 b Always"],
        );
        check("if not TYPE_CHECKING:\n    import a\n", &["2 a Guarded"]);
        check(
            "try:\n    import a\nexcept (ImportError, X):\n    import b\n",
            &["2 a Guarded", "4 b Guarded"],
        );
        check(
            "if __name__ == '__main__':\n    import a\n",
            &["2 a AsProgram"],
        );
        check(
            "class C:\n    import a\n    async def f(self):\n        import b\n",
            &["2 a Always", "4 b Lazy"],
        );
    }

    #[test]
    fn imports_that_may_fail_are_told_from_others() {
        let read = read(
            "try:\n    import a\nexcept ImportError:\n    import b\ndef f():\n    try: import c\n    except E: pass\n    import d\nwith suppress(ImportError):\n    import e\nwith x:\n    import f\n",
        );
        let tried: Vec<bool> = read.imports.iter().map(|import| import.tried).collect();
        assert_eq!(tried, [true, false, true, false, true, false]);
    }

    #[test]
    fn calls_with_names_in_the_source_are_imports() {
        check("importlib.import_module('a.b')\n", &["1 a.b Always"]);
        check(
            "import_module('.a', package=__name__)\nimport_module('.a.b', 'c.d')\n",
            &["1 .[a] Always", "2 c.d.a.b Always"],
        );
        check("__import__('a', globals())\n", &["1 a Always"]);
        check(
            "import_module(f'a.b.{x}')\nimport_module('a.b_' + x)\nimport_module('a.%s' % x)\nimport_module('a.{}'.format(x))\n",
            &[
                "1 a.b/* Always",
                "2 a/b_* Always",
                "3 a/* Always",
                "4 a/* Always",
            ],
        );
        check("import_module(f'.{x}', __package__)\n", &["1 ./* Always"]);
        check(
            "def f(x):\n    import_module(x)\n",
            &["2 ?import_module(x)"],
        );
        check(
            "for m in pkgutil.iter_modules(__path__): pass\n",
            &["1 ./* Guarded"],
        );
        check("def import_module(name): pass\n", &[]);
    }

    #[test]
    fn modules_that_another_python_runs_are_told() {
        let read = read(
            "call([sys.executable, '-m', 'venv', x])\nadd('-m', help='x y')\nc = [py, '-I',\n  '-m', 'pip._internal']\n",
        );
        let run: Vec<(&str, u32)> = read
            .run
            .iter()
            .map(|(name, line)| (&**name, *line))
            .collect();
        assert_eq!(run, [("venv", 1), ("pip._internal", 4)]);
    }

    #[test]
    fn words_and_exports_are_kept() {
        let read = read(
            "__all__ = ['a', 'b']\nLOOP = {'auto': 'uvicorn.loops.auto:setup'}\n'doc'\n\
                  ALL = ['alpha2 = fish.alpha2:Converter', 'x=1']\n",
        );
        assert_eq!(read.exported, ["a", "b"]);
        assert!(
            read.words
                .contains(&("uvicorn.loops.auto:setup".to_owned(), 2))
        );
        let entry = "fish.alpha2:Converter".to_owned();
        assert!(read.words.contains(&(entry, 4)), "{:?}", read.words);
        assert!(!read.words.iter().any(|(word, _)| word == "doc"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(source in "(import |from |\\.|[a-c]|,|\\*|\\(|\\)|\n|    |if |def |:|'|import_module\\(|f'|\\{){0,40}") {
            let _ = read(&source);
        }
    }
}
