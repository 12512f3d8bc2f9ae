//! Sources that no compiler but gcc takes, put right before they are compiled: nested functions
//! (a GNU extension) of packages that many devices need. Text that is not as expected stays.

use std::path::Path;

use super::{NativeError, write};
use crate::scratch::Kind;

/// A function inside another one that is moved out of it.
struct Nested {
    /// The package, normalised.
    package: &'static str,
    file: &'static str,
    /// How the function around it begins.
    around: &'static str,
    /// The nested function's first line; its last is a `}` that is indented as much.
    header: &'static str,
    /// The new function's first lines: what it used of the other's variables become parameters.
    signature: &'static str,
    /// Changes in its text.
    inside: &'static [(&'static str, &'static str)],
    /// Changes of its calls.
    call: (&'static str, &'static str),
}

const NESTED: &[Nested] = &[
    Nested {
        package: "rpi-gpio",
        file: "source/py_gpio.c",
        around: "static PyObject *py_cleanup(",
        header: "   void cleanup_one(void)\n   {\n",
        signature: "static void cleanup_one(unsigned int gpio, int *found)\n{\n",
        inside: &[("         found = 1;", "         *found = 1;")],
        call: ("cleanup_one()", "cleanup_one(gpio, &found)"),
    },
    Nested {
        package: "rpi-gpio",
        file: "source/py_gpio.c",
        around: "static PyObject *py_setup_channel(",
        header: "   int setup_one(void) {\n",
        signature: "static int setup_one(int channel, int direction, int pud, int initial)\n{\n   unsigned int gpio;\n   int func;\n",
        inside: &[],
        call: ("setup_one()", "setup_one(channel, direction, pud, initial)"),
    },
    Nested {
        package: "rpi-gpio",
        file: "source/py_gpio.c",
        around: "static PyObject *py_output_gpio(",
        header: "   int output(void) {\n",
        signature: "static int output_one(int channel, int value)\n{\n   unsigned int gpio;\n",
        inside: &[],
        call: ("output()", "output_one(channel, value)"),
    },
];

/// Puts right what is known of `package` in the unpacked `source`.
pub(super) fn put_right(package: &str, source: &Path) -> Result<(), NativeError> {
    let package = pytheas_project::normalised_name(package);
    for nested in NESTED.iter().filter(|nested| nested.package == package) {
        let path = source.join(nested.file);
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        if let Some(text) = moved_out(&text, nested) {
            tracing::debug!(
                package,
                function = nested.around,
                "moved a nested function out"
            );
            write(&path, &text, Kind::Data)?;
        }
    }
    Ok(())
}

/// The source with the nested function before the one around it; none when it is not there.
fn moved_out(text: &str, nested: &Nested) -> Option<String> {
    let text = text.replace("\r\n", "\n");
    let around = text.find(nested.around)?;
    let start = around + text[around..].find(nested.header)?;
    let body = start + nested.header.len();
    let end = body + text[body..].find("\n   }\n")? + 1;
    let mut function = text[body..end].to_owned();
    for (old, new) in nested.inside {
        function = function.replace(old, new);
    }
    let rest = text[end..].strip_prefix("   }\n")?;
    let (old, new) = nested.call;
    Some(format!(
        "{}{}{function}}}\n\n{}{}",
        &text[..around],
        nested.signature,
        &text[around..start],
        rest.replace(old, new)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nested_function_becomes_one_of_its_own() {
        let text = "int a;\n\nstatic PyObject *py_output_gpio(PyObject *self)\n{\n   int channel = -1;\n   int value;\n\n   int output(void) {\n      if (x)\n      {\n         y();\n      }\n      return channel + value;\n   }\n\n   if (!output())\n      return NULL;\n}\n";
        insta::assert_snapshot!(moved_out(text, &NESTED[2]).unwrap(), @"
        int a;

        static int output_one(int channel, int value)
        {
           unsigned int gpio;
              if (x)
              {
                 y();
              }
              return channel + value;
        }

        static PyObject *py_output_gpio(PyObject *self)
        {
           int channel = -1;
           int value;


           if (!output_one(channel, value))
              return NULL;
        }
        ");
        assert_eq!(moved_out("int main(void) {}\n", &NESTED[2]), None);
    }
}
