//! Feeds a sink until it is killed: `feed-sink CONFIGURATION FIRST-TICK`.

use std::{env, path::Path};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [file, from] = arguments.as_slice() else { panic!("usage: feed-sink CONFIGURATION FIRST-TICK") };
    weir_integration::delivery::feed(Path::new(file), from.parse().expect("it is a number"));
}
