//! Protobuf's text format, as far as configurations use it: nested messages, lists, strings with
//! escapes, comments. Names are not looked up in a schema; that is the reader's part.

/// A message: its fields in order; repeated fields appear several times.
pub type Message = Vec<(String, Value)>;

/// What a field holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number or a bare word such as `true` or `TYPE_FP32`, as it was written.
    Word(String),
    /// A string between quotes.
    Text(String),
    /// A nested message.
    Message(Message),
}

/// How deep messages may be nested.
const MAX_DEPTH: usize = 32;

/// Parses a whole file; the error says in which line what is wrong.
pub fn parse(text: &str) -> Result<Message, String> {
    let mut parser = Parser { text, at: 0 };
    let message = parser.message(None, 0);
    message.map_err(|problem| {
        let line =
            text.as_bytes()[..parser.at.min(text.len())].iter().filter(|b| **b == b'\n').count();
        format!("line {}: {problem}", line + 1)
    })
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    /// Fields up to a closing bracket, or to the end of the text.
    fn message(&mut self, close: Option<u8>, depth: usize) -> Result<Message, String> {
        if depth > MAX_DEPTH {
            return Err(format!("messages are nested more than {MAX_DEPTH} deep"));
        }
        let mut fields = Vec::new();
        loop {
            match (self.peek(), close) {
                (None, None) => return Ok(fields),
                (None, Some(close)) => {
                    return Err(format!("the file ends where a {} is missing", char::from(close)));
                }
                (Some(byte), Some(close)) if byte == close => {
                    self.at += 1;
                    return Ok(fields);
                }
                _ => self.field(&mut fields, depth)?,
            }
            if matches!(self.peek(), Some(b',' | b';')) {
                self.at += 1;
            }
        }
    }

    fn field(&mut self, fields: &mut Message, depth: usize) -> Result<(), String> {
        let name = self.word();
        if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return Err(format!("expected the name of a field, got {}", self.found(name)));
        }
        let name = name.to_owned();
        let colon = self.take(b':');
        match self.peek() {
            Some(b'[') => {
                self.at += 1;
                self.list(&name, colon, fields, depth)
            }
            _ => {
                let value = self.value(colon, depth)?;
                fields.push((name, value));
                Ok(())
            }
        }
    }

    fn list(
        &mut self,
        name: &str,
        colon: bool,
        fields: &mut Message,
        depth: usize,
    ) -> Result<(), String> {
        if self.take(b']') {
            return Ok(());
        }
        loop {
            let value = self.value(colon, depth)?;
            fields.push((name.to_owned(), value));
            if self.take(b']') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(format!(
                    "expected , or ] in the list \"{name}\", got {}",
                    self.found("")
                ));
            }
        }
    }

    /// A value; only messages may do without the colon.
    fn value(&mut self, colon: bool, depth: usize) -> Result<Value, String> {
        match self.peek() {
            Some(b'{') => {
                self.at += 1;
                self.message(Some(b'}'), depth + 1).map(Value::Message)
            }
            Some(b'<') => {
                self.at += 1;
                self.message(Some(b'>'), depth + 1).map(Value::Message)
            }
            _ if !colon => Err(format!("expected : or {{, got {}", self.found(""))),
            Some(b'"' | b'\'') => self.strings().map(Value::Text),
            _ => {
                let minus = if self.take(b'-') { "-" } else { "" };
                match self.word() {
                    "" => Err(format!("expected a value, got {}", self.found(""))),
                    word => Ok(Value::Word(format!("{minus}{word}"))),
                }
            }
        }
    }

    /// One string, or several side by side, which belong together.
    fn strings(&mut self) -> Result<String, String> {
        let mut bytes = Vec::new();
        while let Some(quote @ (b'"' | b'\'')) = self.peek() {
            self.at += 1;
            self.string(quote, &mut bytes)?;
        }
        String::from_utf8(bytes).map_err(|_| "a string is not UTF-8".into())
    }

    fn string(&mut self, quote: u8, into: &mut Vec<u8>) -> Result<(), String> {
        loop {
            match self.next() {
                None | Some(b'\n') => return Err("a string has no end".into()),
                Some(byte) if byte == quote => return Ok(()),
                Some(b'\\') => self.escape(into)?,
                Some(byte) => into.push(byte),
            }
        }
    }

    fn escape(&mut self, into: &mut Vec<u8>) -> Result<(), String> {
        let byte = self.next().ok_or("a string has no end")?;
        let simple = match byte {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'v' => 11,
            b'\\' | b'\'' | b'"' | b'?' => byte,
            b'0'..=b'7' => {
                self.at -= 1;
                let code = self.digits(8, 3);
                u8::try_from(code).map_err(|_| format!("the escape \\{code:o} is no byte"))?
            }
            b'x' | b'X' => {
                let start = self.at;
                let code = self.digits(16, 2);
                if self.at == start {
                    return Err("the escape \\x has no digits".into());
                }
                u8::try_from(code).unwrap_or_default()
            }
            b'u' | b'U' => {
                let length = if byte == b'u' { 4 } else { 8 };
                let start = self.at;
                let code = self.digits(16, length);
                let letter = char::from_u32(code).filter(|_| self.at - start == length);
                let letter = letter.ok_or("a \\u escape is no character")?;
                into.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            other => return Err(format!("the escape \\{} is not known", char::from(other))),
        };
        into.push(simple);
        Ok(())
    }

    fn digits(&mut self, radix: u32, most: usize) -> u32 {
        let mut code = 0u32;
        for _ in 0..most {
            let digit =
                self.text.as_bytes().get(self.at).and_then(|b| char::from(*b).to_digit(radix));
            let Some(digit) = digit else { break };
            code = code.wrapping_mul(radix).wrapping_add(digit);
            self.at += 1;
        }
        code
    }

    /// A run of the characters that names and numbers are made of.
    fn word(&mut self) -> &'a str {
        self.skip_blank();
        let rest = &self.text[self.at..];
        let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '+');
        // An exponent may have a sign of its own.
        let mut end = 0;
        for (index, c) in rest.char_indices() {
            let signed = c == '-'
                && rest[..index].ends_with(['e', 'E'])
                && rest.starts_with(|c: char| c.is_ascii_digit() || c == '.');
            if !part(c) && !signed {
                break;
            }
            end = index + c.len_utf8();
        }
        self.at += end;
        &rest[..end]
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.text.as_bytes().get(self.at).copied();
        self.at += usize::from(byte.is_some());
        byte
    }

    fn peek(&mut self) -> Option<u8> {
        self.skip_blank();
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_blank(&mut self) {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'#' => {
                    while bytes.get(self.at).is_some_and(|byte| *byte != b'\n') {
                        self.at += 1;
                    }
                }
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                _ => break,
            }
        }
    }

    /// What stands at this place, for messages.
    fn found(&self, word: &str) -> String {
        match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            _ if !word.is_empty() => format!("\"{word}\""),
            Some(c) => format!("\"{}\"", c.escape_debug()),
            None => "the end of the file".into(),
        }
    }
}
