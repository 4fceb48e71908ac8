//! Names whose values are secrets.

/// Headers, in lower case.
const HEADERS: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "ocp-apim-subscription-key",
    "x-functions-key",
];

/// The header that names a part of a form, which may be a secret.
pub(super) const PART_HEADER: &str = "content-disposition";

/// Keys of queries and forms.
const QUERY_KEYS: &[&str] = &[
    "auth",
    "awsaccesskeyid",
    "code",
    "key",
    "pass",
    "pin",
    "session",
    "sessionid",
    "sid",
    "sig",
    "x-amz-credential",
];

/// Keys of queries, forms and JSON, besides those with [`secret_part`].
const KEYS: &[&str] = &["assertion", "authorization", "client_assertion", "jwt"];

/// Ends of keys of all kinds, and of headers.
const ENDS: &[&str] = &["pwd", "signature"];

/// What stands in front of `key` in names of secrets; there may be a sign between the two.
const KINDS_OF_KEYS: &[&str] = &["access", "api", "encryption", "private", "signing"];

/// What follows `token` in names of things that are none: kinds of them, places where to get one, and how many there are.
const BEHIND_TOKEN: &[&str] = &["count", "endpoint", "ize", "type", "uri", "url"];

/// What follows `pass` in names of secrets.
const BEHIND_PASS: &[&str] = &["code", "phrase", "wd", "word"];

/// How many letters at the end of a name are compared.
pub(super) const MOST_NAME: usize = 48;

/// The last two letters of all names in these lists: most words end otherwise, and need not be compared.
const LAST_LETTERS: [bool; 1 << 10] = {
    let mut table = [false; 1 << 10];
    let lists = [HEADERS, QUERY_KEYS, KEYS, ENDS, &[PART_HEADER]];
    let mut list = 0;
    while list < lists.len() {
        let mut place = 0;
        while place < lists[list].len() {
            table[last_letters(lists[list][place].as_bytes())] = true;
            place += 1;
        }
        list += 1;
    }
    table
};

/// Where the end of a name has its place in [`LAST_LETTERS`].
const fn last_letters(name: &[u8]) -> usize {
    match name {
        [.., before, last] => ((*before as usize % 32) << 5) | (*last as usize % 32),
        _ => 0,
    }
}

/// Pairs of letters of which each name with a [`secret_part`] has one: pa-ss-word, se-cr-et, t-ok-en, k-ey.
const PAIRS: [&[u8; 2]; 4] = [b"ss", b"cr", b"ok", b"ey"];

/// Set for bytes of which words are made.
const LETTER: u16 = 1 << 8;

/// Of each byte: which pairs it is the first letter of (the upper half of the lower eight bits), of which ones the second, and
/// whether it is a [`LETTER`].
const CLASSES: [u16; 256] = {
    let mut table = [0; 256];
    let letters = b"abcdefghijklmnopqrstuvwxyz0123456789_-.";
    let mut place = 0;
    while place < letters.len() {
        let letter = letters[place];
        let mut class = LETTER;
        let mut pair = 0;
        while pair < PAIRS.len() {
            if PAIRS[pair][0] == letter {
                class |= 0x10 << pair;
            }
            if PAIRS[pair][1] == letter {
                class |= 1 << pair;
            }
            pair += 1;
        }
        table[letter as usize] = class;
        table[letter.to_ascii_uppercase() as usize] = class;
        place += 1;
    }
    table
};

/// Whether a word may have this byte.
pub(super) const fn is_letter(byte: u8) -> bool {
    CLASSES[byte as usize] & LETTER != 0
}

/// How long the word is that begins here, and whether it may be the name of a secret. Most are not.
pub(super) fn measure(data: &[u8]) -> (usize, bool) {
    let (mut found, mut before, mut length) = (0, 0, 0);
    for byte in data {
        let class = CLASSES[usize::from(*byte)];
        if class & LETTER == 0 {
            break;
        }
        found |= (before >> 4) & class & 0xf;
        before = class & 0xf0;
        length += 1;
    }
    let name = &data[..length];
    (length, LAST_LETTERS[last_letters(name)] || found != 0 && secret_part(name))
}

/// Whether letters that stand in several pieces may be the name of a secret.
pub(super) fn may_be_secret<'l>(letters: impl Iterator<Item = &'l u8>) -> bool {
    let (mut found, mut last) = (0, [0; 2]);
    for letter in letters {
        found |= (CLASSES[usize::from(last[1])] >> 4) & CLASSES[usize::from(*letter)] & 0xf;
        last = [last[1], *letter];
    }
    found != 0 || LAST_LETTERS[last_letters(&last)]
}

/// Whether a name, in letters of either case, says anywhere that it is of a secret.
fn secret_part(name: &[u8]) -> bool {
    let has = |from: Option<usize>, part: &[u8]| {
        let there = from.and_then(|from| name.get(from..from + part.len()));
        there.is_some_and(|there| there.eq_ignore_ascii_case(part))
    };
    let classes = |place: usize| CLASSES[usize::from(name[place])];
    (1..name.len()).any(|place| {
        let pairs = (classes(place - 1) >> 4) & classes(place) & 0xf;
        let back = |letters: usize| place.checked_sub(letters + 1);
        match pairs {
            0b0001 => {
                has(back(2), b"pass") && BEHIND_PASS.iter().any(|rest| has(Some(place + 1), rest.as_bytes()))
            }
            // What sites may see of each other's answers has such a name, too.
            0b0010 => {
                has(back(2), b"secret") || has(back(0), b"credential") && !has(Some(0), b"access-control-")
            }
            0b0100 => has(back(1), b"token") && !is_about_tokens(&name[place + 3..]),
            0b1000 => {
                has(back(1), b"key") && {
                    let before = without_sign(&name[..place - 2], <[u8]>::strip_suffix);
                    KINDS_OF_KEYS.iter().any(|kind| {
                        let end = before.len().checked_sub(kind.len()).and_then(|from| before.get(from..));
                        end.is_some_and(|end| end.eq_ignore_ascii_case(kind.as_bytes()))
                    })
                }
            }
            _ => false,
        }
    })
}

/// A part of a name without the sign at one end of it.
fn without_sign<'n>(part: &'n [u8], strip: impl Fn(&'n [u8], &[u8; 1]) -> Option<&'n [u8]>) -> &'n [u8] {
    [b"_", b"-", b"."].iter().find_map(|sign| strip(part, sign)).unwrap_or(part)
}

/// Whether what is called so, behind the word `token`, is something about them, and none itself.
fn is_about_tokens(behind: &[u8]) -> bool {
    let behind = without_sign(behind, <[u8]>::strip_prefix);
    let begins = |with: &&str| {
        behind.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with.as_bytes()))
    };
    behind.eq_ignore_ascii_case(b"s") || BEHIND_TOKEN.iter().any(begins)
}

fn is_secret(name: &[u8]) -> bool {
    let is_end = |end: &&str| {
        let last = name.len().checked_sub(end.len()).and_then(|from| name.get(from..));
        last.is_some_and(|last| last.eq_ignore_ascii_case(end.as_bytes()))
    };
    ENDS.iter().any(is_end) || secret_part(name)
}

fn is_in(list: &[&str], name: &[u8]) -> bool {
    list.iter().any(|one| name.eq_ignore_ascii_case(one.as_bytes()))
}

/// Whether the value of a header is a secret. Letters may be of either case, here and below.
pub(super) fn is_secret_header(name: &[u8]) -> bool {
    let is_for_x_auth = || name.get(..6).is_some_and(|begin| begin.eq_ignore_ascii_case(b"x-auth"));
    is_in(HEADERS, name) || is_for_x_auth() || is_secret(name)
}

/// Whether the value of a key in a query or a form is a secret.
pub(super) fn is_secret_in_query(name: &[u8]) -> bool {
    is_in(QUERY_KEYS, name) || is_secret_in_json(name)
}

/// Whether the value of a key in JSON is a secret.
pub(super) fn is_secret_in_json(name: &[u8]) -> bool {
    is_in(KEYS, name) || is_secret(name)
}

/// The last letters of a word that is compared, in lower case.
#[derive(Clone, Debug)]
pub(super) struct Word {
    /// Twice as many as are compared, so that they need not move at each letter.
    letters: [u8; 2 * MOST_NAME],
    length: usize,
}

impl Word {
    pub(super) const fn new() -> Self {
        Self { letters: [0; 2 * MOST_NAME], length: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.length = 0;
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn push(&mut self, letter: u8) {
        self.extend(&[letter]);
    }

    /// Several letters at once.
    pub(super) fn extend(&mut self, letters: &[u8]) {
        let letters = &letters[letters.len().saturating_sub(MOST_NAME)..];
        if self.length + letters.len() > self.letters.len() {
            self.letters.copy_within(self.length - MOST_NAME..self.length, 0);
            self.length = MOST_NAME;
        }
        for (place, letter) in self.letters[self.length..].iter_mut().zip(letters) {
            *place = letter.to_ascii_lowercase();
        }
        self.length += letters.len();
    }

    /// The word, of a long one its end; empty if it is none.
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The same as bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.letters[self.length.saturating_sub(MOST_NAME)..self.length]
    }
}

/// What there is, of each, in names of keys of JSON whose values are secrets.
#[cfg(test)]
pub(super) fn secret_keys() -> Vec<String> {
    let with_pass = BEHIND_PASS.iter().map(|rest| format!("pass{rest}"));
    let of_keys = KINDS_OF_KEYS.iter().flat_map(|kind| [format!("{kind}_key"), format!("{kind}key")]);
    let others = KEYS.iter().chain(ENDS).chain(&["secret", "credential", "token"]);
    others.map(|name| (*name).to_owned()).chain(with_pass).chain(of_keys).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_secret_wherever_they_say_it() {
        let secrets = [
            "X-Secret-Key",
            "X-Api-Key-V2",
            "X-Token-Value",
            "SecretAccessKey",
            "aws_secret_access_key",
            "secret_key",
            "secretKey",
            "encryption_key",
            "passcode",
            "userPassword2",
            "db_passwd_old",
            "apikey",
            "api_key_id",
            "PRIVATE-KEY",
            "credentials",
            "access.token.value",
            "refreshTokenV2",
            "secret_tokens",
        ];
        let plain = [
            "tokens",
            "max_tokens",
            "promptTokens",
            "token_type",
            "token-type-hint",
            "tokenizer",
            "token_uri",
            "Access-Control-Allow-Credentials",
            "key",
            "keyboard",
            "monkey",
            "message",
            "description",
            "address",
            "compass",
            "passenger",
            "author",
            "book",
            "primary_key",
        ];
        for (names, expected) in [(&secrets[..], true), (&plain[..], false)] {
            for name in names {
                let lower = name.to_ascii_lowercase();
                assert_eq!(is_secret_in_json(lower.as_bytes()), expected, "{name}");
                assert_eq!(is_secret_header(lower.as_bytes()), expected, "{name}");
                let (length, may_be) = measure(format!("{name}: x").as_bytes());
                assert_eq!(length, name.len());
                assert!(may_be || !expected, "{name}");
            }
        }
    }

    #[test]
    fn of_a_long_word_the_end_is_compared_however_it_comes() {
        let name = "SPRING_DATASOURCE_HIKARI_DATA_SOURCE_PROPERTIES_OF_THE_SECOND_ONE_PASSWORD";
        for piece in [1, 3, 7, 47, 48, 49, 60, 100] {
            let mut word = Word::new();
            name.as_bytes().chunks(piece).for_each(|letters| word.extend(letters));
            assert_eq!(word.as_str(), name[name.len() - MOST_NAME..].to_ascii_lowercase(), "by {piece}");
            assert!(is_secret_in_json(word.as_bytes()));
        }
    }
}
