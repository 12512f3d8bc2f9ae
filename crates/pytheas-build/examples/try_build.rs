//! Hand test: builds a folder. try_build DIR OUT [--name N] [--entry E] [--python P] [--interpreter I]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program")]
use pytheas_build::{BuildRequest, build};
use pytheas_project::Project;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let run = || -> Result<(), Box<dyn std::error::Error>> {
        let mut request = BuildRequest::new(Project::load(args[0].as_ref())?);
        request.out = Some(args[1].clone().into());
        for pair in args[2..].chunks(2) {
            match pair[0].as_str() {
                "--name" => request.name = Some(pair[1].parse()?),
                "--entry" => request.entry = Some(pair[1].parse()?),
                "--python" => request.python = Some(pair[1].parse()?),
                "--interpreter" => request.interpreter = pair[1].parse()?,
                "--mirror" => request.python_mirror = Some(pair[1].clone()),
                other => panic!("{other}"),
            }
        }
        let built = build(&request, &|event| eprintln!("{event:?}"))?;
        println!(
            "{} {} {:.1} MB {} files {:?} {}",
            built.dir.display(),
            built.tree_id.short(),
            built.size_bytes as f64 / 1e6,
            built.file_count,
            built.elapsed,
            built.interpreter.version
        );
        Ok(())
    };
    if let Err(error) = run() {
        let mut text = format!("error: {error}");
        let mut cause = error.source();
        while let Some(c) = cause {
            text += &format!("\n  cause: {c}");
            cause = c.source();
        }
        eprintln!("{text}");
        std::process::exit(1);
    }
}
