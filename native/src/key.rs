//! The record key `tenant/entity`, percent-escaped as `heddle.contracts.keys` does it.

use crate::plan::{Key, Part};
use crate::record::{Record, Stop};

impl Record<'_> {
    pub fn key(&mut self, key: &Key, out: &mut Vec<u8>) -> Result<(), Stop> {
        if let Some(call) = key.call.0 {
            out.extend_from_slice(self.given(call)?);
            return Ok(());
        }
        match &key.tenant {
            None => out.extend_from_slice(b"default"),
            Some(tenant) => self.escaped(tenant, b"%", out)?,
        }
        out.push(b'/');
        if let [only] = key.entities.as_slice() {
            return self.escaped(only, b"%", out);
        }
        // Each is escaped, joined by '/', and escaped again: of the first's signs only '%' needs the second.
        for (index, entity) in key.entities.iter().enumerate() {
            if index > 0 {
                out.extend_from_slice(b"%2F");
            }
            self.escaped(entity, b"%25", out)?;
        }
        Ok(())
    }

    /// The text of `parts`, with `sign` and two digits for each byte that is no letter, digit or `-._~`.
    fn escaped(&mut self, parts: &[Part], sign: &[u8], out: &mut Vec<u8>) -> Result<(), Stop> {
        let start = out.len();
        self.parts(parts, out)?;
        if out.iter().skip(start).all(|byte| is_plain(*byte)) {
            return Ok(());
        }
        let text = &mut self.registers.text;
        text.clear();
        text.extend(out.drain(start..));
        for byte in text {
            if is_plain(*byte) {
                out.push(*byte);
            } else {
                out.extend_from_slice(sign);
                out.extend(
                    [*byte >> 4, *byte & 15].map(|digit| if digit < 10 { b'0' + digit } else { b'A' - 10 + digit }),
                );
            }
        }
        Ok(())
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}
