//! What it costs to look for secrets in text, by what the text is and how much of it comes at a time.
//!
//! Some text has marks of what may be secrets more often than other; none of this has any secrets.

use std::hint::black_box;

use weir_flow::Monotonic;
use weir_l7::{Chunk, Part, Recognised, Redactor};

use crate::{stage::thread_time, traffic};

/// Options of the benchmark.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Rounds of each measurement; the fastest counts
    #[arg(long, default_value_t = 25)]
    rounds: usize,
}

/// Bytes of each text.
const BYTES: usize = 1 << 20;

/// Bytes that come at a time: a piece of a stream, a packet, a small message.
const CHUNKS: [usize; 3] = [64 << 10, 1400, 64];

/// Prints a table.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    println!("| MB a second, by bytes at a time | 65,536 | 1,400 | 64 |\n|---|---|---|---|");
    for (name, text) in texts() {
        let mut speeds = Vec::new();
        for chunk in CHUNKS {
            let mut least = f64::INFINITY;
            for _ in 0..arguments.rounds {
                let before = thread_time()?;
                mask(&text, chunk);
                least = least.min(thread_time()? - before);
            }
            #[expect(clippy::cast_precision_loss, reason = "a small number")]
            speeds.push(format!("{:.0}", text.len() as f64 * 1e3 / least));
        }
        println!("| {name} | {} |", speeds.join(" | "));
    }
    Ok(())
}

fn mask(text: &[u8], chunk: usize) {
    let mut redactor = Redactor::new(Recognised::Unknown, false);
    let mut position = 0;
    for data in text.chunks(chunk) {
        let chunk = Chunk::Bytes { position, time: Monotonic(1), data };
        redactor.push(Part::Client, chunk, &mut |chunk| {
            black_box(chunk);
        });
        position += data.len() as u64;
    }
}

fn texts() -> [(&'static str, Vec<u8>); 8] {
    let again = |text: &str| text.bytes().cycle().take(BYTES).collect();
    let mut state = 1_u64;
    let mut noise = || {
        // Constants of Knuth's MMIX; the upper bits are the better ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    let noise: Vec<u8> = (0..BYTES).map(|_| noise()).collect();
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let base64 = noise.iter().map(|byte| letters[usize::from(byte % 64)]).collect();
    [
        ("JSON, a line each", traffic::records(BYTES)),
        (
            "JSON, indented",
            again(
                "    {\n      \"id\": 17,\n      \"metadata\": {\n        \"name\": \"web-4\",\n        \"createdAt\": \"2024-05-06T07:08:09Z\"\n      },\n      \"enabled\": true\n    },\n",
            ),
        ),
        (
            "HTML",
            again(
                "<div class=\"row\">\n  <a href=\"https://www.example.com/articles/7?page=2&amp;sort=asc\">An article</a>\n  <p>Some text &nbsp;of it which goes on for a while, makes a point, and ends.</p>\n</div>\n",
            ),
        ),
        (
            "log lines",
            again(
                "2024-05-06 07:08:09.123 INFO  [worker-3] orders.Service - processed order id=3194 in 61 ms, status=OK items=3\n",
            ),
        ),
        (
            "English",
            again(
                "What comes at a time is not always much, and most of it is text that somebody\nmeant to be read. Nothing in it is secret; but to know that, it must be looked at,\nand that takes its time.\n",
            ),
        ),
        ("base64", base64),
        ("noise", noise),
        ("zeros", vec![0; BYTES]),
    ]
}
