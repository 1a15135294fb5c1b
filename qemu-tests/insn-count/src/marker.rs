//! The marker instruction: how a guest tells the counter where it is.
//!
//! A marker is `nop dword ptr [rax + imm32]` (`0f 1f 80 imm32`), with an immediate of [`BASE`] plus the marker's
//! number. It does nothing on any x86-64 processor, needs no privilege and no device, and no compiler emits it
//! with that immediate. The module knows bytes only, not QEMU.

/// The immediate of marker 0.
const BASE: u32 = 0x0C0A_C100;

/// Opcode and ModRM byte of `nop dword ptr [rax + disp32]`.
const OPCODE: [u8; 3] = [0x0f, 0x1f, 0x80];

/// The length of a marker instruction in bytes.
pub(crate) const LEN: usize = 7;

/// The marker's number (1 to 255), if these bytes are exactly one marker instruction.
pub(crate) fn parse(instruction: &[u8]) -> Option<u8> {
    let bytes: &[u8; LEN] = instruction.try_into().ok()?;
    let immediate = u32::from_le_bytes([bytes[3], bytes[4], bytes[5], bytes[6]]);
    let number = u8::try_from(immediate.checked_sub(BASE)?).ok()?;
    (bytes[..3] == OPCODE && number != 0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_instruction_is_a_marker() {
        let cases: [(&[u8], Option<u8>); 7] = [
            (&[0x0f, 0x1f, 0x80, 0x01, 0xc1, 0x0a, 0x0c], Some(1)),
            (&[0x0f, 0x1f, 0x80, 0xff, 0xc1, 0x0a, 0x0c], Some(255)),
            (&[0x0f, 0x1f, 0x80, 0x00, 0xc1, 0x0a, 0x0c], None),
            (&[0x0f, 0x1f, 0x80, 0x01, 0xc2, 0x0a, 0x0c], None),
            (&[0x0f, 0x1f, 0x84, 0x01, 0xc1, 0x0a, 0x0c], None),
            (&[0x0f, 0x1f, 0x80, 0x01, 0xc1, 0x0a], None),
            (&[], None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(parse(bytes), expected, "{bytes:02x?}");
        }
    }
}
