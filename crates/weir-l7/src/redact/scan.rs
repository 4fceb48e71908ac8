//! [`find`]: what matters among bytes of which nearly none does.
//!
//! A test that needs no branches is made for all bytes of a block together, and only what passes it is looked at. The test may
//! let through what does not matter, and must not hold back what does.

/// Bytes that are tested together.
const BLOCK: usize = 64;

/// Bytes behind a block that its last one may be tested with.
const AHEAD: usize = 8;

/// A block and what is behind it.
pub(super) type Window = [u8; BLOCK + AHEAD];

/// Looks at each place that passes the test, in order, until something is found. Behind the end of the data stands the padding,
/// again and again. The test has to be inlined: a block is tested at once only where no call is in between.
pub(super) fn find<T>(
    data: &[u8],
    from: usize,
    padding: u8,
    may_matter: impl Fn(&Window, usize) -> bool,
    mut look: impl FnMut(usize) -> Option<T>,
) -> Option<T> {
    let mut begin = from;
    while let Some(rest) = data.get(begin..).filter(|rest| !rest.is_empty()) {
        let padded;
        let window = if let Some(window) = rest.first_chunk() {
            window
        } else {
            padded = pad(rest, padding);
            &padded
        };
        let mut marks = [0_u8; BLOCK];
        for (place, mark) in marks.iter_mut().enumerate() {
            *mark = u8::from(may_matter(window, place));
        }
        if marks.iter().fold(0, |any, mark| any | mark) != 0 {
            let mut left = bits(&marks);
            while left != 0 {
                let place = begin + left.trailing_zeros() as usize;
                left &= left - 1;
                if place >= data.len() {
                    return None;
                }
                let found = look(place);
                if found.is_some() {
                    return found;
                }
            }
        }
        begin += BLOCK;
    }
    None
}

/// A bit for each byte, which is 0 or 1.
fn bits(marks: &[u8; BLOCK]) -> u64 {
    // Byte 0 goes to bit 56, byte 1 to bit 57, and none of the others gets there or carries to there.
    const TO_THE_TOP: u64 = 0x0102_0408_1020_4080;
    marks
        .as_chunks::<8>()
        .0
        .iter()
        .rev()
        .fold(0, |bits, eight| bits << 8 | u64::from_le_bytes(*eight).wrapping_mul(TO_THE_TOP) >> 56)
}

fn pad(rest: &[u8], padding: u8) -> Window {
    let mut window = [padding; BLOCK + AHEAD];
    window[..rest.len()].copy_from_slice(rest);
    window
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_that_passes_the_test_is_looked_at_in_order() {
        for length in [0, 1, 63, 64, 65, 71, 72, 73, 128, 200] {
            for step in [1, 2, 7, 8, 63, 64] {
                let data: Vec<u8> = (0..length).map(|place| u8::from(place % step == 0)).collect();
                for from in [0, 1, length / 2, length] {
                    let mut seen = Vec::new();
                    let is_one = |window: &Window, place: usize| window[place] == 1;
                    let found = find(&data, from, 1, is_one, |place| {
                        seen.push(place);
                        None::<()>
                    });
                    assert_eq!(found, None);
                    assert!(seen.into_iter().eq((from..length).filter(|place| place % step == 0)));
                }
            }
        }
    }
}
