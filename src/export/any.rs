//! lib0's `Any`: values inside arrays and maps.

use super::ExportError;
use super::out::Out;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contextnexus_gate::Rule;
use contextnexus_gate::lib0::Reader;

/// Reads over one value.
pub(super) fn skip(reader: &mut Reader<'_>) -> Result<(), ExportError> {
    walk(reader, &mut |_| Ok(()))
}

/// Writes one value as JSON. Bytes become Base64, what JSON has not becomes `null`.
pub(super) fn write(bytes: &[u8], out: &mut Out) -> Result<(), ExportError> {
    walk(&mut Reader::new(bytes), &mut |piece| match piece {
        Piece::Raw(text) => out.push(text),
        Piece::String(text) => out.push_string(text),
        Piece::Integer(value) => out.push(&value.to_string()),
        Piece::Float(value) => out.push(&number(value)),
        Piece::Binary(bytes) => out.push_string(&STANDARD.encode(bytes)),
    })
}

fn number(value: f64) -> String {
    serde_json::Number::from_f64(value).map_or_else(|| "null".to_owned(), |number| number.to_string())
}

enum Piece<'a> {
    Raw(&'static str),
    String(&'a str),
    Integer(i64),
    Float(f64),
    Binary(&'a [u8]),
}

struct Level {
    left: u64,
    keyed: bool,
    first: bool,
}

type Tell<'t> = dyn for<'p> FnMut(Piece<'p>) -> Result<(), ExportError> + 't;

fn walk(reader: &mut Reader<'_>, tell: &mut Tell<'_>) -> Result<(), ExportError> {
    let mut levels: Vec<Level> = Vec::new();
    loop {
        match reader.read_u8().map_err(unreadable)? {
            127 | 126 => tell(Piece::Raw("null"))?, // undefined, null
            125 => tell(Piece::Integer(reader.read_var_int().map_err(unreadable)?))?,
            124 => tell(Piece::Float(f64::from(f32::from_be_bytes(take(reader)?))))?,
            123 => tell(Piece::Float(f64::from_be_bytes(take(reader)?)))?,
            122 => tell(Piece::Integer(i64::from_be_bytes(take(reader)?)))?,
            121 => tell(Piece::Raw("false"))?,
            120 => tell(Piece::Raw("true"))?,
            119 => tell(Piece::String(reader.read_var_string().map_err(unreadable)?))?,
            116 => tell(Piece::Binary(reader.read_var_bytes().map_err(unreadable)?))?,
            tag @ (118 | 117) => {
                let left = reader.read_var_uint().map_err(unreadable)?;
                if left > reader.remaining() as u64 {
                    return Err(ExportError::Unreadable("a value claims more than there is"));
                }
                let keyed = tag == 118;
                tell(Piece::Raw(if keyed { "{" } else { "[" }))?;
                levels.push(Level { left, keyed, first: true });
            }
            _ => return Err(ExportError::Unreadable("an unknown value")),
        }
        loop {
            let Some(level) = levels.last_mut() else { return Ok(()) };
            if level.left == 0 {
                tell(Piece::Raw(if level.keyed { "}" } else { "]" }))?;
                levels.pop();
                continue;
            }
            level.left -= 1;
            if !std::mem::take(&mut level.first) {
                tell(Piece::Raw(","))?;
            }
            if level.keyed {
                tell(Piece::String(reader.read_var_string().map_err(unreadable)?))?;
                tell(Piece::Raw(":"))?;
            }
            break;
        }
    }
}

fn take<const N: usize>(reader: &mut Reader<'_>) -> Result<[u8; N], ExportError> {
    reader.take(N).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(ExportError::Unreadable("a value ends early"))
}

/// The rules' own names hold no content.
pub(super) fn unreadable(_: Rule) -> ExportError {
    ExportError::Unreadable("a block ends early or breaks a rule")
}
