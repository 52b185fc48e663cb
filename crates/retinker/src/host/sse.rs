//! Server-sent events, parsed as their bytes come.

/// The longest event that is kept; a longer one is a broken server.
const MAX_EVENT: usize = 16 << 20;

/// The state between two pieces of a stream. Pieces may end anywhere, inside a line break or a character too.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    after_cr: bool,
    begun: bool,
}

/// The stream holds an event that is too long to be one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Parser {
    /// Takes one piece; gives the data of every event that it completes.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut events = Vec::new();
        for &byte in piece {
            // A line ends with LF, CR, or CR LF; the last counts once.
            let second_half = byte == b'\n' && self.after_cr;
            self.after_cr = byte == b'\r';
            if second_half {
                continue;
            }
            if byte == b'\n' || byte == b'\r' {
                self.end_line(&mut events);
            } else {
                self.line.push(byte);
                if self.line.len() + self.data.len() > MAX_EVENT {
                    return Err(TooLong);
                }
            }
        }
        Ok(events)
    }

    fn end_line(&mut self, events: &mut Vec<Vec<u8>>) {
        let mut line = std::mem::take(&mut self.line);
        if !std::mem::replace(&mut self.begun, true) && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        if line.is_empty() {
            if std::mem::take(&mut self.has_data) {
                events.push(std::mem::take(&mut self.data));
            }
            return;
        }
        // Comments (keep-alives) begin with a colon; other fields than data mean nothing here.
        let value = match line.strip_prefix(b"data") {
            Some([]) => &[][..],
            Some([b':', b' ', value @ ..] | [b':', value @ ..]) => value,
            _ => return,
        };
        if std::mem::replace(&mut self.has_data, true) {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;

    fn texts(pieces: &[&[u8]]) -> Vec<String> {
        let mut parser = Parser::default();
        pieces
            .iter()
            .flat_map(|piece| parser.feed(piece).unwrap())
            .map(|event| String::from_utf8(event).unwrap())
            .collect()
    }

    const STREAM: &[u8] =
        b"\xef\xbb\xbf: hello\r\n\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\n:keep-alive\n\nevent: x\nid: 7\ndata:\xc3\xa9\n\ndata\r\rdata: cut off";

    #[test]
    fn every_boundary_gives_the_same_events() {
        let expected = ["{\"a\":\n1}", "é", ""];
        assert_eq!(texts(&[STREAM]), expected);
        for at in 0..STREAM.len() {
            let (a, b) = STREAM.split_at(at);
            assert_eq!(texts(&[a, b]), expected, "cut at {at}");
        }
        let single: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(texts(&single), expected);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; 1 << 20];
        let refused = (0..17).find_map(|_| parser.feed(&piece).err());
        assert_eq!(refused, Some(TooLong));
    }
}
