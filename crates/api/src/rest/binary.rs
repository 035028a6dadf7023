//! The binary tensor extension: blobs behind the JSON. What a blob holds is [`crate::binary`]'s.

use bytes::Bytes;

/// What follows the JSON, handed out tensor by tensor in the JSON's order, without a copy.
pub(super) struct Blobs {
    rest: Bytes,
}

impl Blobs {
    pub(super) fn new(rest: Bytes) -> Self {
        Self { rest }
    }

    /// The next tensor's bytes.
    pub(super) fn take(&mut self, size: usize) -> Result<Bytes, String> {
        if size > self.rest.len() {
            return Err(format!(
                "binary_data_size is {size}, but only {} bytes of binary data are left",
                self.rest.len()
            ));
        }
        Ok(self.rest.split_to(size))
    }

    /// Refuses bytes that no tensor has asked for.
    pub(super) fn finish(self) -> Result<(), String> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(format!(
                "{more} bytes of binary data more than the inputs' binary_data_size add up to"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_do_not_add_up_are_refused() {
        let mut blobs = Blobs::new(Bytes::from_static(&[0; 8]));
        assert!(blobs.take(9).unwrap_err().contains("only 8 bytes"));
        assert_eq!(blobs.take(3).unwrap().len(), 3);
        assert!(blobs.finish().unwrap_err().contains("5 bytes of binary data more"));
    }
}
