//! Random trees survive publishing and fetching; random answers never make the client panic.

use std::{collections::BTreeMap, fs};

use proptest::prelude::*;
use pytheas_repo::{
    client::Client,
    fetch::{Body, Fetch, FolderFetch, Request, TransportError},
};

use crate::world::{World, now};

fn files() -> impl Strategy<Value = BTreeMap<String, Vec<u8>>> {
    let name = "[a-c]{1,2}(/[a-d é]{1,3}){0,2}";
    let content = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        (any::<u8>(), 0..200_000usize).prop_map(|(byte, len)| vec![byte; len]),
        (1..9u64, 1..90_000usize).prop_map(|(seed, len)| crate::world::noise(seed, len)),
    ];
    prop::collection::btree_map(name, content, 0..12).prop_map(|files| {
        // A path below a file cannot be.
        let names: Vec<String> = files.keys().cloned().collect();
        let below = |name: &str| {
            names
                .iter()
                .any(|other| name.starts_with(&format!("{other}/")))
        };
        files.into_iter().filter(|(name, _)| !below(name)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn every_sequence_of_releases_reaches_a_device(releases in prop::collection::vec(files(), 1..4)) {
        let world = World::new();
        for (number, files) in releases.iter().enumerate() {
            let files: Vec<(&str, &[u8])> =
                files.iter().map(|(name, content)| (name.as_str(), &content[..])).collect();
            world.publish(&format!("{number}"), &files).unwrap();
        }
        let device = world.device("device");
        for (number, files) in releases.iter().enumerate() {
            let mut got = device.install(&mut FolderFetch(world.repo()), &format!("{number}")).unwrap();
            got.remove("bin/app");
            got.remove("pytheas.json");
            prop_assert_eq!(&got, files);
        }
    }

    #[test]
    fn no_answer_makes_the_client_panic(answers in prop::collection::vec((0..6usize, prop::collection::vec(any::<u8>(), 0..300)), 1..8)) {
        struct Random<'a>(FolderFetch, std::slice::Iter<'a, (usize, Vec<u8>)>);
        impl Fetch for Random<'_> {
            fn fetch(&mut self, request: &Request<'_>) -> Result<Option<Body>, TransportError> {
                let Some((at, bytes)) = self.1.next() else { return self.0.fetch(request) };
                let content = fs::read(self.0.0.join(request.path)).unwrap_or_default();
                let keep = content.len() * at / 5;
                let mixed = [&content[..keep], bytes].concat();
                Ok(Some(Body { start: *at as u64 % 2, reader: Box::new(std::io::Cursor::new(mixed)) }))
            }
        }
        let world = World::new();
        world.publish("1", &[("a", b"a")]).unwrap();
        let device = world.device("device");
        let mut random = Random(FolderFetch(world.repo()), answers.iter());
        let _whatever = device.install(&mut random, "1");
        // And its state is good afterwards.
        Client::open(&device.state, &mut FolderFetch(world.repo())).unwrap().refresh(now()).unwrap();
    }
}
