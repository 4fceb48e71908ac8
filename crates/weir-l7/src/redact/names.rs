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

/// Keys of queries, forms and JSON.
const KEYS: &[&str] = &[
    "access_key",
    "accesskey",
    "assertion",
    "authorization",
    "client_assertion",
    "credential",
    "credentials",
    "jwt",
    "private_key",
    "privatekey",
    "pwd",
];

/// Ends of keys of all kinds, and of headers.
const ENDS: &[&str] =
    &["api-key", "api_key", "apikey", "passphrase", "passwd", "password", "secret", "signature", "token"];

/// Longest name that is compared. Longer ones are none of these.
pub(super) const MOST_NAME: usize = 48;

/// The last two letters of all names in these lists: most words end otherwise, and need not be compared.
const LAST_LETTERS: [bool; 1 << 10] = {
    let mut table = [false; 1 << 10];
    let lists = [HEADERS, QUERY_KEYS, KEYS, ENDS];
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

/// Whether a name, in letters of either case, ends as one of those that are secret. Most do not.
pub(super) fn may_be_secret(name: &[u8]) -> bool {
    LAST_LETTERS[last_letters(name)]
}

fn ends_as_secret(name: &str) -> bool {
    ENDS.iter().any(|end| name.ends_with(end))
}

/// Whether the value of a header is a secret.
pub(super) fn is_secret_header(name: &str) -> bool {
    HEADERS.contains(&name) || name.starts_with("x-auth") || ends_as_secret(name)
}

/// Whether the value of a key in a query or a form is a secret.
pub(super) fn is_secret_in_query(name: &str) -> bool {
    may_be_secret(name.as_bytes()) && (QUERY_KEYS.contains(&name) || is_secret_in_json(name))
}

/// Whether the value of a key in JSON is a secret.
pub(super) fn is_secret_in_json(name: &str) -> bool {
    may_be_secret(name.as_bytes()) && (KEYS.contains(&name) || ends_as_secret(name))
}

/// Letters of a word that is compared, in lower case.
#[derive(Clone, Debug)]
pub(super) struct Word {
    letters: [u8; MOST_NAME],
    length: usize,
}

impl Word {
    pub(super) const fn new() -> Self {
        Self { letters: [0; MOST_NAME], length: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.length = 0;
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn push(&mut self, letter: u8) {
        if let Some(place) = self.letters.get_mut(self.length) {
            *place = letter.to_ascii_lowercase();
        }
        self.length = (self.length + 1).min(MOST_NAME + 1);
    }

    /// Several letters at once.
    pub(super) fn extend(&mut self, letters: &[u8]) {
        let room = self.letters.get_mut(self.length..).unwrap_or_default();
        let kept = room.len().min(letters.len());
        for (place, letter) in room.iter_mut().zip(letters) {
            *place = letter.to_ascii_lowercase();
        }
        self.length += if kept < letters.len() { MOST_NAME + 1 - self.length } else { kept };
    }

    /// The word; empty if it was too long, or is none.
    pub(super) fn as_str(&self) -> &str {
        self.letters
            .get(..self.length)
            .and_then(|letters| std::str::from_utf8(letters).ok())
            .unwrap_or_default()
    }
}
