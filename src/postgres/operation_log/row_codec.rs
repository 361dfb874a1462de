//! How updates lie in a row: each as its length (u32, little endian) and its bytes, compressed as a whole where that pays, with a
//! checksum over what it was before. Pure.

use bytes::Bytes;
use contextnexus_actors::ids::DocumentId;

/// As it is.
const RAW: i16 = 0;
/// One lz4 block.
const LZ4: i16 = 1;
/// Below it lz4 has nothing to find.
const COMPRESS_FROM_BYTES: usize = 256;
/// A `bytea` ends at 1 GiB, and so does a message to PostgreSQL.
const ROW_BYTES_MAX: usize = 512 << 20;

/// Bytes as they are stored.
#[derive(Clone, Debug)]
pub(super) struct Compressed {
    pub codec: i16,
    pub raw_bytes: i32,
    pub bytes: Vec<u8>,
}

/// More than a row can hold.
#[derive(Debug, thiserror::Error)]
#[error("{0} bytes are more than a row can hold")]
pub(super) struct TooLarge(usize);

/// Compresses where it pays: at least an eighth saved.
pub(super) fn compress(raw: Vec<u8>) -> Result<Compressed, TooLarge> {
    let size = raw.len();
    let raw_bytes = i32::try_from(size).ok().filter(|_| size <= ROW_BYTES_MAX).ok_or(TooLarge(size))?;
    if size >= COMPRESS_FROM_BYTES {
        let compressed = lz4_flex::block::compress(&raw);
        if compressed.len() < size - size / 8 {
            return Ok(Compressed { codec: LZ4, raw_bytes, bytes: compressed });
        }
    }
    Ok(Compressed { codec: RAW, raw_bytes, bytes: raw })
}

/// `None` for what [`pack`] never made. Takes no more memory than the bytes can honestly unpack to.
pub(in crate::postgres) fn decompress(codec: i16, raw_bytes: i32, bytes: Vec<u8>) -> Option<Vec<u8>> {
    let size = usize::try_from(raw_bytes).ok()?;
    match codec {
        RAW => (bytes.len() == size).then_some(bytes),
        // lz4 makes at most 255 bytes of one.
        LZ4 if size <= bytes.len().saturating_mul(255).min(ROW_BYTES_MAX) => {
            let mut raw = vec![0; size];
            let written = lz4_flex::block::decompress_into(&bytes, &mut raw).ok()?;
            (written == size).then_some(raw)
        }
        _ => None,
    }
}

/// The updates of one row, framed.
pub(super) fn encode(updates: &[Bytes]) -> Result<Vec<u8>, TooLarge> {
    let size = updates.iter().fold(0_usize, |size, update| size.saturating_add(update.len()).saturating_add(4));
    if size > ROW_BYTES_MAX {
        return Err(TooLarge(size));
    }
    let mut framed = Vec::with_capacity(size);
    for update in updates {
        let length = u32::try_from(update.len()).map_err(|_| TooLarge(update.len()))?;
        framed.extend_from_slice(&length.to_le_bytes());
        framed.extend_from_slice(update);
    }
    Ok(framed)
}

/// The updates of a row, sharing its bytes. `None` when the frames do not end with the bytes.
pub(super) fn decode(framed: Vec<u8>) -> Option<Vec<Bytes>> {
    let mut rest = Bytes::from(framed);
    let mut updates = Vec::new();
    while !rest.is_empty() {
        let length = rest.first_chunk::<4>().copied().map(u32::from_le_bytes)?;
        let length = usize::try_from(length).ok()?;
        if rest.len() - 4 < length {
            return None;
        }
        let _ = rest.split_to(4);
        updates.push(rest.split_to(length));
    }
    Some(updates)
}

/// Over a row's place and its frames, so that neither a flipped bit nor a row in another's place passes.
pub(super) fn row_checksum(document: DocumentId, seq_from: i64, seq_to: i64, framed: &[u8]) -> i64 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(document.0.as_bytes());
    crc.update(&seq_from.to_le_bytes());
    crc.update(&seq_to.to_le_bytes());
    crc.update(framed);
    i64::from(crc.finalize())
}

/// Over a snapshot's place, tip and contents.
pub(super) fn snapshot_checksum(
    document: DocumentId,
    seq: i64,
    tip: uuid::Uuid,
    state: &[u8],
    state_vector: &[u8],
    writers: &[u8],
) -> i64 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(document.0.as_bytes());
    crc.update(&seq.to_le_bytes());
    crc.update(tip.as_bytes());
    crc.update(&(state.len() as u64).to_le_bytes());
    crc.update(state);
    crc.update(state_vector);
    crc.update(writers); // empty in what was stored before they were kept
    i64::from(crc.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn updates() -> Vec<Bytes> {
        vec![Bytes::from_static(b"one"), Bytes::new(), Bytes::from(vec![7; 5000])]
    }

    #[test]
    fn what_is_packed_comes_back() {
        for updates in [updates(), vec![Bytes::from_static(b"short")], Vec::new()] {
            let packed = compress(encode(&updates).unwrap()).unwrap();
            assert_eq!(decode(decompress(packed.codec, packed.raw_bytes, packed.bytes).unwrap()).unwrap(), updates);
        }
    }

    #[test]
    fn noise_is_stored_as_it_is() {
        let mut noise = vec![0; 4096];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        assert_eq!(compress(noise).unwrap().codec, RAW);
        assert_eq!(compress(vec![0; 4096]).unwrap().codec, LZ4);
    }

    #[test]
    fn a_size_that_the_bytes_cannot_have_allocates_nothing() {
        let packed = compress(vec![0; 4096]).unwrap();
        assert!(decompress(LZ4, i32::MAX, packed.bytes.clone()).is_none());
        assert!(decompress(LZ4, packed.raw_bytes + 1, packed.bytes.clone()).is_none());
        assert!(decompress(LZ4, packed.raw_bytes - 1, packed.bytes.clone()).is_none());
        assert!(decompress(LZ4, -1, packed.bytes.clone()).is_none());
        assert!(decompress(RAW, packed.raw_bytes, packed.bytes.clone()).is_none());
        assert!(decompress(2, packed.raw_bytes, packed.bytes).is_none());
    }

    #[test]
    fn frames_that_do_not_end_with_the_bytes_are_none() {
        let framed = encode(&updates()).unwrap();
        for cut in [1, 3, framed.len() - 1] {
            assert!(decode(framed[..cut].to_vec()).is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn a_row_in_anothers_place_fails_its_checksum() {
        let document = DocumentId(uuid::Uuid::from_u128(1));
        let checksum = row_checksum(document, 1, 3, b"x");
        assert_ne!(checksum, row_checksum(document, 2, 3, b"x"));
        assert_ne!(checksum, row_checksum(document, 1, 2, b"x"));
        assert_ne!(checksum, row_checksum(document, 1, 3, b"y"));
        assert_ne!(checksum, row_checksum(DocumentId(uuid::Uuid::from_u128(2)), 1, 3, b"x"));
    }
}
