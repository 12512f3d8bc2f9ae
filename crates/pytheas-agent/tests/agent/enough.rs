//! Hubs that do not want to hear any more: nothing is told for ever, and nothing waits behind it.

use std::time::Duration;

use crate::support::{App, World, until};

#[test]
fn a_hub_that_has_heard_enough_of_an_action_is_told_how_it_ended_all_the_same() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    world.hub.talk().heard_enough = true;
    let second = world.publish(&App::good("1.1.0"));
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("1.1.0");
    assert_eq!(world.hub.codes(&action), [] as [i64; 0]);
    // The first report as often as it may be a busy hub; none of the others.
    let refused = world.hub.talk().refused;
    assert!((1..=4).contains(&refused), "{refused}");
}

#[test]
fn a_hub_that_takes_no_attributes_is_told_how_an_update_ended_all_the_same() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    world.hub.talk().too_many_attributes = true;
    let second = world.publish(&App::good("1.1.0"));
    let action = world.hub.offer(&second.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    device.runs("1.1.0");
    let refused = world.hub.talk().refused;
    assert!(refused >= 4, "{refused}");
}

#[test]
fn an_answer_that_the_hub_does_not_take_is_given_up() {
    let world = World::new();
    let first = world.publish(&App::good("1.0.0"));
    let device = world.device_with("device", &first);
    {
        let mut talk = world.hub.talk();
        (talk.confirm, talk.heard_enough) = (true, true);
    }
    world.hub.offer("app/9/any/release.json");
    until("it waits", || {
        device.status()["confirm"]["release"].as_str().map(drop)
    });
    let answer = device.state.join("answer.json");
    assert!(device.output("deny", &[]).status.success());
    until("it is given up", || (!answer.exists()).then_some(()));
    let refused = world.hub.talk().refused;
    assert!((2..=4).contains(&refused), "{refused}");
    world.hub.polled(2);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(world.hub.talk().refused, refused, "never told again");
    assert!(device.log().contains("the hub takes no answer"));
}
