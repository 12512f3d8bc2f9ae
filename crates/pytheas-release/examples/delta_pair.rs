fn main() {
    use pytheas_release::{delta::*, *};
    use std::{
        collections::BTreeMap,
        fs,
        io::{self, Write as _},
        path::{Path, PathBuf},
        time::Instant,
    };
    struct Dir(PathBuf);
    impl Files for Dir {
        fn read(&self, path: &RelPath, offset: u64, len: usize) -> io::Result<Vec<u8>> {
            use std::os::unix::fs::FileExt;
            let mut b = vec![0; len];
            fs::File::open(path.under(&self.0))?.read_exact_at(&mut b, offset)?;
            Ok(b)
        }
    }
    struct Out(PathBuf, Option<fs::File>);
    impl MadeSink for Out {
        fn begin(&mut self, n: usize, from: u64) -> io::Result<()> {
            let p = self.0.join(format!("{n}"));
            self.1 = Some(if from == 0 {
                fs::File::create(p)?
            } else {
                fs::OpenOptions::new().append(true).open(p)?
            });
            Ok(())
        }
        fn write(&mut self, b: &[u8]) -> io::Result<()> {
            self.1.as_mut().unwrap().write_all(b)
        }
        fn finish(&mut self, _: Sha256) -> io::Result<()> {
            self.1 = None;
            Ok(())
        }
    }
    fn walk(root: &Path, at: &Path, tree: &mut Tree) {
        for e in fs::read_dir(at).unwrap() {
            let p = e.unwrap().path();
            let rel: RelPath = p
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .parse()
                .unwrap();
            let m = fs::symlink_metadata(&p).unwrap();
            if m.is_dir() {
                walk(root, &p, tree)
            } else if m.is_symlink() {
                let _ = tree.insert(
                    rel,
                    Entry::Symlink {
                        target: fs::read_link(&p).unwrap().to_str().unwrap().into(),
                    },
                );
            } else {
                let b = fs::read(&p).unwrap();
                tree.insert(
                    rel,
                    Entry::File {
                        size_bytes: b.len() as u64,
                        sha256: Sha256::of(&b),
                        executable: false,
                    },
                )
                .unwrap();
            }
        }
    }
    let a: Vec<String> = std::env::args().collect();
    let tree = |d: &str| {
        let mut t = Tree::default();
        walk(Path::new(d), Path::new(d), &mut t);
        t
    };
    if a[1] == "make" {
        let (old, new) = (tree(&a[2]), tree(&a[3]));
        let t = Instant::now();
        let (delta, summary) = make_with_summary(
            &old,
            &new,
            &Dir(a[2].clone().into()),
            &Dir(a[3].clone().into()),
        )
        .unwrap();
        println!(
            "made in {:?}: {} bytes, plan {}",
            t.elapsed(),
            delta.len(),
            summary.plan_bytes
        );
        let mut by: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
        for p in &summary.parts {
            let e = by.entry(p.method).or_default();
            e[0] += 1;
            e[1] += p.contents;
            e[2] += p.size_bytes;
            e[3] += p.packed_bytes;
            if p.packed_bytes > 20000 {
                println!(
                    "  {} {} {} -> {} {}",
                    p.method, p.contents, p.size_bytes, p.packed_bytes, p.path
                );
            }
        }
        println!("{by:?}");
        fs::write(&a[4], &delta).unwrap();
        fs::write(format!("{}.old", a[4]), old.encode()).unwrap();
    } else {
        let old = Tree::parse(&fs::read(format!("{}.old", a[3])).unwrap()).unwrap();
        fs::create_dir_all(&a[4]).unwrap();
        let t = Instant::now();
        let d = Delta::open(io::BufReader::new(fs::File::open(&a[3]).unwrap())).unwrap();
        let new = d
            .apply(
                &old,
                &Dir(a[2].clone().into()),
                &mut Out(a[4].clone().into(), None),
            )
            .unwrap();
        println!("applied in {:?}: {} entries", t.elapsed(), new.len());
        for l in fs::read_to_string("/proc/self/status")
            .unwrap()
            .lines()
            .filter(|l| l.starts_with("VmHWM"))
        {
            println!("{l}");
        }
    }
}
