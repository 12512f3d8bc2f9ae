//! Firmware files: whatever takes an image has it where it says, and takes it again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pytheas_board::firmware::{Placement, inject};

fuzz_target!(|bytes: &[u8]| {
    let image = b"\xd2\xcd\x31\x06\x05\x04\x01a\x02\x00";
    for placement in [
        Placement { address: Some(0x1010_0000), ..Placement::default() },
        Placement::default(),
        Placement { add: Some(0x1_0000), take_from: Some("vfs".into()), ..Placement::default() },
    ] {
        if let Ok(injected) = inject(bytes, image, &placement) {
            assert!(injected.bytes.windows(4).count() > 0);
            let again = inject(&injected.bytes, image, &placement);
            assert!(again.is_ok_and(|again| again.bytes == injected.bytes && again.replaced));
        }
    }
});
