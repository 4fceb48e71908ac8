//! Nothing depends on how much is looked at together: one byte at a time, everything is read, and of much at once nearly
//! everything is passed over.

use super::*;

/// Parts of text: names, what stands around them, and what looks like them.
const PIECES: &[&str] = &[
    "\"",
    "\"",
    "\"",
    "\\\"",
    ":",
    ":",
    ": ",
    "=",
    "=",
    "?",
    "&",
    "\n",
    "\n",
    "\r\n",
    "\r",
    "\n\n",
    "\r\n\r\n",
    " ",
    " ",
    "\t",
    ",",
    "{",
    "}",
    "[",
    "]",
    "%5B",
    "%",
    "/",
    "//",
    "://",
    "http://",
    "https://u:p@h/",
    "x://host/",
    "@",
    "\\",
    "<",
    ">",
    "'",
    ";",
    "--",
    "\n--",
    "-",
    "_",
    ".",
    "b1",
    "a",
    "password",
    "PassWord",
    "passwd",
    "passphrase",
    "passcode",
    "pass",
    "PASS ",
    "AUTH ",
    "auth",
    "word",
    "to",
    "ken",
    "token",
    "Token",
    "tokens",
    "token_type",
    "secret",
    "SECRET",
    "credential",
    "access-control-allow-",
    "api",
    "access",
    "_",
    "key",
    "keyboard",
    "private_key",
    "monkey",
    "pwd",
    "signature",
    "sig",
    "sid",
    "session",
    "sessionid",
    "code",
    "pin",
    "jwt",
    "client_assertion",
    "assertion",
    "authorization",
    "Authorization: ",
    "Cookie: ",
    "set-cookie",
    "x-auth-a",
    "x-functions-key",
    "Content-Disposition: form-data; name=\"password\"",
    "content-disposition: name=token",
    "name",
    "name=",
    "eyJ",
    "ey",
    "J",
    "AKIA",
    "ASIA",
    "AKIAIOSFODNN7EXAMPLE",
    "4111111111111111",
    "4111 1111 1111 1111",
    "5555-5555-5555-4444",
    "378282246310005",
    "3782 822463 10005",
    "41111 11111 111111",
    "411111 1111111111",
    "4000",
    "2024-01-01T10:00:00",
    "1732232030123",
    "5",
    "41",
    "4.2",
    "é",
    "\0",
    "\u{1}",
    "abcdefghijklmnopqrstuvwxyz0123456789",
    "the quick brown fox jumps over the lazy dog, and then some more of it",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "line of words without anything else in it for a while",
    "                                                                ",
];

/// Says it in pieces of these sizes, again and again, with gaps behind some; what comes out of each side.
fn said(text: &[u8], sizes: &[usize], is_joined: bool, gaps: &[usize], recognised: Recognised) -> Vec<u8> {
    let mut redactor = Redactor::new(recognised, is_joined);
    let mut out = Out::default();
    let mut position = 0;
    let mut start = 0;
    let mut sizes = sizes.iter().copied().cycle();
    let mut gaps = gaps.iter().copied().chain([text.len()]);
    let mut gap = gaps.next().unwrap_or(text.len()).min(text.len());
    while start < text.len() {
        if start == gap {
            let chunk = Chunk::Gap {
                position: position as u64,
                time: Monotonic(1),
                length: 3,
                reason: GapReason::Lost,
            };
            redactor.push(Part::Client, chunk, &mut |chunk| out.take(chunk));
            position += 3;
            gap = gaps.find(|next| *next > start).unwrap_or(text.len()).min(text.len());
        }
        let end = (start + sizes.next().unwrap_or(1)).min(gap.max(start + 1)).min(text.len());
        say(&mut redactor, Part::Client, position, &text[start..end], &mut out);
        position += end - start;
        start = end;
    }
    redactor.end(Part::Client, &mut |chunk| out.take(chunk));
    out.bytes
}

proptest! {
    #[test]
    fn much_at_once_is_masked_as_one_byte_at_a_time(
        pieces in prop::collection::vec(prop_oneof![
            30 => prop::sample::select(PIECES).prop_map(|text| text.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 1..40),
            1 => (prop::sample::select(PIECES), 1..30_usize).prop_map(|(text, times)| text.as_bytes().repeat(times)),
        ], 0..80),
        sizes in prop::collection::vec(prop_oneof![1..200_usize, Just(usize::MAX / 2)], 1..4),
        gaps in prop::collection::btree_set(1..2000_usize, 0..3),
        is_joined in prop::bool::weighted(0.1),
        is_http in prop::bool::weighted(0.1),
    ) {
        let text = pieces.concat();
        let gaps: Vec<usize> = gaps.into_iter().collect();
        let recognised = if is_http { HTTP } else { Recognised::Unknown };
        let together = said(&text, &sizes, is_joined, &gaps, recognised);
        let apart = said(&text, &[1], is_joined, &gaps, recognised);
        prop_assert_eq!(together.escape_ascii().to_string(), apart.escape_ascii().to_string());
    }
}
