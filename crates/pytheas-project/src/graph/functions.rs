//! The functions of a module with the lines they stand on, told from its source: what a traceback
//! without line numbers can be led back to.

use super::tokens::{Line, Token, lines};

/// A function or lambda.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its own name, `<lambda>` for a lambda: what a traceback shows.
    pub name: String,
    /// With the classes and functions around it: `Request.create`.
    pub qualified: String,
    /// First line, from 1.
    pub first: u32,
    /// Last line.
    pub last: u32,
}

/// All functions of `source`, in order.
pub fn functions(source: &str) -> Vec<Function> {
    let mut found: Vec<Function> = Vec::new();
    // Open blocks: indentation, name, index in `found` for functions.
    let mut open: Vec<(usize, String, Option<usize>)> = Vec::new();
    for line in lines(source) {
        while open.last().is_some_and(|(indent, _, _)| *indent >= line.indent) {
            open.pop();
        }
        let last = line.tokens.last().map_or(line.number, |(_, number)| *number);
        for at in open.iter().filter_map(|(_, _, at)| *at) {
            found[at].last = last;
        }
        let (is_function, name) = definition(&line);
        if let Some(name) = name {
            let qualified = qualified_in(&open, name);
            let at = is_function.then_some(found.len());
            if is_function {
                found.push(Function {
                    name: name.to_owned(),
                    qualified,
                    first: line.number,
                    last,
                });
            }
            open.push((line.indent, name.to_owned(), at));
        }
        for (token, number) in &line.tokens {
            if *token == Token::Name("lambda") {
                found.push(Function {
                    name: "<lambda>".to_owned(),
                    qualified: qualified_in(&open, "<lambda>"),
                    first: *number,
                    last: *number,
                });
            }
        }
    }
    found
}

fn qualified_in(open: &[(usize, String, Option<usize>)], name: &str) -> String {
    let outer = open.iter().map(|(_, name, _)| name.as_str());
    outer.chain([name]).collect::<Vec<_>>().join(".")
}

/// Whether the line defines a function (else a class), and its name.
fn definition<'a>(line: &Line<'a>) -> (bool, Option<&'a str>) {
    let name = |at: usize| match line.tokens.get(at) {
        Some((Token::Name(name), _)) => Some(*name),
        _ => None,
    };
    match (name(0), name(1)) {
        (Some("def"), found) => (true, found),
        (Some("async"), Some("def")) => (true, name(2)),
        (Some("class"), found) => (false, found),
        _ => (false, None),
    }
}

#[cfg(test)]
mod tests {
    use super::functions;

    #[test]
    fn functions_have_names_and_lines() {
        let source = "\
class A:
    def f(self):
        '''doc
        def no(): pass
        '''
        def inner():
            return 1

        return inner

    async def g(
        self,
    ):
        return (
            lambda: 1
        )
x = 1
def h(): pass
";
        let found: Vec<String> = functions(source)
            .iter()
            .map(|f| format!("{} {}-{}", f.qualified, f.first, f.last))
            .collect();
        assert_eq!(
            found,
            [
                "A.f 2-9",
                "A.f.inner 6-7",
                "A.g 11-16",
                "A.g.<lambda> 15-15",
                "h 18-18"
            ]
        );
    }
}
