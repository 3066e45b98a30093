//! Frames: what the bytes on the control port are.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length of the payload, little endian |
//! | 4 | id of the command or request that a stream belongs to, little endian; 0 for a message |
//! | 1 | [`Kind`] |
//! | … | payload |
//!
//! [`Decoder`] takes bytes as they come and gives frames. It trusts nothing: an unknown kind and a
//! length above what the kind may have are errors, and it never holds more than one frame.

use super::MAX_MESSAGE_BYTES;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 9;

/// The longest payload of a stream. With its header it is what a virtio port takes in one `write`.
pub const MAX_DATA_BYTES: usize = (32 << 10) - HEADER_BYTES;

/// How much of a stream may be on its way without the receiver's having passed it on.
pub const WINDOW_BYTES: u64 = 1 << 20;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A request or a message, in JSON.
    Message = 0,
    /// Bytes for a command's stdin, or of an archive of files; to the guest.
    Stdin = 1,
    /// Bytes of a command's stdout; from the guest.
    Stdout = 2,
    /// Bytes of a command's stderr; from the guest.
    Stderr = 3,
    /// The receiver of a stream has passed bytes on: which stream ([`Kind`], one byte), how many
    /// (4 bytes, little endian).
    Credit = 4,
    /// There is no more stdin. No payload.
    End = 5,
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        const ALL: [Kind; 6] =
            [Kind::Message, Kind::Stdin, Kind::Stdout, Kind::Stderr, Kind::Credit, Kind::End];
        ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    fn max_payload(self) -> usize {
        match self {
            Kind::Message => MAX_MESSAGE_BYTES,
            Kind::Stdin | Kind::Stdout | Kind::Stderr => MAX_DATA_BYTES,
            Kind::Credit => CREDIT_BYTES,
            Kind::End => 0,
        }
    }
}

const CREDIT_BYTES: usize = 5;

/// The header of a frame.
///
/// # Panics
/// When the payload is longer than a `u32` can say.
pub fn header(kind: Kind, id: u32, payload_bytes: usize) -> [u8; HEADER_BYTES] {
    let length = u32::try_from(payload_bytes).expect("no frame is that long");
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..8].copy_from_slice(&id.to_le_bytes());
    header[8] = kind as u8;
    header
}

/// A whole frame.
pub fn encode(kind: Kind, id: u32, payload: &[u8]) -> Vec<u8> {
    [&header(kind, id, payload.len())[..], payload].concat()
}

/// The frame that gives room back for `bytes` of a stream.
pub fn credit(stream: Kind, id: u32, bytes: u32) -> Vec<u8> {
    let mut payload = [0; CREDIT_BYTES];
    payload[0] = stream as u8;
    payload[1..].copy_from_slice(&bytes.to_le_bytes());
    encode(Kind::Credit, id, &payload)
}

/// A frame, as [`Decoder::next`] gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub kind: Kind,
    /// The command or request it belongs to.
    pub id: u32,
    /// What it carries.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// The stream and the number of bytes of a [`Kind::Credit`].
    pub fn as_credit(&self) -> Option<(Kind, u32)> {
        let (&stream, count) = self.payload.split_first()?;
        Some((Kind::of(stream)?, u32::from_le_bytes(count.try_into().ok()?)))
    }
}

/// Bytes that are no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// No frame is of this kind.
    #[error("a frame of the unknown kind {kind}")]
    UnknownKind {
        /// The byte found.
        kind: u8,
    },
    /// It says that it is longer than its kind may be.
    #[error("a frame of kind {kind:?} of {length} bytes, where {} are allowed", .kind.max_payload())]
    TooLong {
        /// Its kind.
        kind: Kind,
        /// The length it says.
        length: u32,
    },
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// Where the next frame begins in `bytes`.
    start: usize,
}

impl Decoder {
    /// A decoder that has seen nothing.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Takes bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start == self.bytes.len() {
            self.bytes.clear();
        } else {
            self.bytes.drain(..self.start);
        }
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes of a frame that has begun and is not complete.
    pub fn pending(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The next complete frame; `None` until more bytes come.
    ///
    /// # Errors
    /// [`FrameError`]; the stream makes no sense from there on.
    #[expect(clippy::should_implement_trait, reason = "it lends what it holds")]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let rest = &self.bytes[self.start..];
        let Some((header, rest)) = rest.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [l0, l1, l2, l3, i0, i1, i2, i3, kind] = *header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let kind = Kind::of(kind).ok_or(FrameError::UnknownKind { kind })?;
        if length as usize > kind.max_payload() {
            return Err(FrameError::TooLong { kind, length });
        }
        let Some(payload) = rest.get(..length as usize) else { return Ok(None) };
        self.start += HEADER_BYTES + payload.len();
        Ok(Some(Frame { kind, id: u32::from_le_bytes([i0, i1, i2, i3]), payload }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_however_the_bytes_are_cut() {
        let mut stream = encode(Kind::Message, 0, b"{}");
        stream.extend(encode(Kind::Stdout, 7, &[9; MAX_DATA_BYTES]));
        stream.extend(credit(Kind::Stdin, 8, 300));
        stream.extend(encode(Kind::End, u32::MAX, b""));
        for cut in [1, 2, 8, 9, 10, 1000, stream.len()] {
            let mut decoder = Decoder::new();
            let mut found = Vec::new();
            for part in stream.chunks(cut) {
                decoder.push(part);
                while let Some(frame) = decoder.next().unwrap() {
                    found.push((frame.kind, frame.id, frame.payload.len(), frame.as_credit()));
                }
            }
            assert_eq!(
                found[..2],
                [(Kind::Message, 0, 2, None), (Kind::Stdout, 7, MAX_DATA_BYTES, None)]
                    .map(|(kind, id, bytes, credit)| (kind, id, bytes, credit)),
                "{cut}"
            );
            assert_eq!(found[2], (Kind::Credit, 8, 5, Some((Kind::Stdin, 300))));
            assert_eq!(found[3], (Kind::End, u32::MAX, 0, None));
            assert!(decoder.pending().is_empty());
        }
    }

    #[test]
    fn what_is_no_frame_is_refused_before_it_is_held() {
        let mut decoder = Decoder::new();
        decoder.push(b"{\"type\":\"hello\"}");
        assert_eq!(decoder.next(), Err(FrameError::UnknownKind { kind: b'"' }));
        let mut decoder = Decoder::new();
        decoder.push(&header(Kind::Stderr, 1, MAX_DATA_BYTES + 1));
        let error = decoder.next().unwrap_err();
        assert!(error.to_string().contains("kind Stderr"), "{error}");
    }
}
