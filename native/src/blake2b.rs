//! BLAKE2b (RFC 7693) without a key, 16 bytes long: what ids are made of.

const START: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];

/// Which word of the block goes where, round by round.
const ORDER: [[usize; 16]; 10] = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
    [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
    [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
    [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
    [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
    [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
    [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
    [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
];

const BLOCK_BYTES: usize = 128;
pub const DIGEST_BYTES: usize = 16;

/// Depth 1, fanout 1, no key, and the length: RFC 7693, 2.5.
const PARAMETERS: u64 = 0x0101_0000 ^ DIGEST_BYTES as u64;

pub fn digest(data: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut state = START;
    let [first, ..] = &mut state;
    *first ^= PARAMETERS;
    let (mut rest, mut done) = (data, 0);
    while let Some((block, more)) = rest.split_first_chunk().filter(|(_, more)| !more.is_empty()) {
        done += BLOCK_BYTES;
        compress(&mut state, block, done, 0);
        rest = more;
    }
    let mut last = [0; BLOCK_BYTES];
    last.iter_mut().zip(rest).for_each(|(to, byte)| *to = *byte);
    compress(&mut state, &last, done + rest.len(), u64::MAX);
    let [first, second, ..] = state;
    (u128::from(second) << 64 | u128::from(first)).to_le_bytes()
}

/// `last`: all bits for the last block, none for the others.
#[allow(clippy::indexing_slicing, reason = "constants and a table of constants, into arrays of known length")]
fn compress(state: &mut [u64; 8], block: &[u8; BLOCK_BYTES], done: usize, last: u64) {
    let (words, _) = block.as_chunks();
    let mut message = [0; 16];
    message.iter_mut().zip(words).for_each(|(to, word)| *to = u64::from_le_bytes(*word));
    let mut v = [0; 16];
    v.iter_mut().zip(state.iter().chain(&START)).for_each(|(to, word)| *to = *word);
    v[12] ^= done as u64; // its upper half is nothing that memory could hold
    v[14] ^= last;
    round::<0>(&mut v, &message);
    round::<1>(&mut v, &message);
    round::<2>(&mut v, &message);
    round::<3>(&mut v, &message);
    round::<4>(&mut v, &message);
    round::<5>(&mut v, &message);
    round::<6>(&mut v, &message);
    round::<7>(&mut v, &message);
    round::<8>(&mut v, &message);
    round::<9>(&mut v, &message);
    round::<0>(&mut v, &message);
    round::<1>(&mut v, &message);
    for (index, word) in state.iter_mut().enumerate() {
        *word ^= v[index] ^ v[index + 8];
    }
}

/// With one row of `ORDER`, which the compiler knows: so every word stays in a register, and no index is checked.
#[inline(always)]
#[allow(clippy::indexing_slicing, reason = "constants and a table of constants, into arrays of known length")]
fn round<const ROW: usize>(v: &mut [u64; 16], message: &[u64; 16]) {
    let mut mix = |a: usize, b: usize, c: usize, d: usize, at: usize| {
        v[a] = v[a].wrapping_add(v[b]).wrapping_add(message[ORDER[ROW][at]]);
        v[d] = (v[d] ^ v[a]).rotate_right(32);
        v[c] = v[c].wrapping_add(v[d]);
        v[b] = (v[b] ^ v[c]).rotate_right(24);
        v[a] = v[a].wrapping_add(v[b]).wrapping_add(message[ORDER[ROW][at + 1]]);
        v[d] = (v[d] ^ v[a]).rotate_right(16);
        v[c] = v[c].wrapping_add(v[d]);
        v[b] = (v[b] ^ v[c]).rotate_right(63);
    };
    mix(0, 4, 8, 12, 0);
    mix(1, 5, 9, 13, 2);
    mix(2, 6, 10, 14, 4);
    mix(3, 7, 11, 15, 6);
    mix(0, 5, 10, 15, 8);
    mix(1, 6, 11, 12, 10);
    mix(2, 7, 8, 13, 12);
    mix(3, 4, 9, 14, 14);
}
