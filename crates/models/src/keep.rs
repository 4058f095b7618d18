//! The keep mask of one weight: one bit per element, opened where it is used.

use std::sync::OnceLock;

use tch::{Device, Kind, Tensor};

use crate::ModelError;

/// Masks of at most this many elements stay open beside their bits: opening them costs more than the memory they take.
const SMALL: i64 = 1 << 20;

/// A keep mask `[rows, columns]`, true where an element survives, stored as eight elements to a byte along each row, lowest bit first.
#[derive(Debug)]
pub struct KeepMask {
    /// u8 `[rows, ceil(columns / 8)]`, where the weight is.
    bits: Tensor,
    columns: i64,
    /// What each bit of a byte is worth, beside bits on another device than the host.
    powers: Option<Tensor>,
    /// The open forms of a small mask: bool `[rows, columns]`, kept and removed.
    open: Option<(Tensor, Tensor)>,
}

impl KeepMask {
    /// Packs a mask, bool `[rows, columns]`; stays on its device.
    ///
    /// # Errors
    /// A mask that is not a matrix.
    pub fn pack(name: &str, keep: &Tensor) -> Result<Self, ModelError> {
        let size = keep.size();
        let &[rows, columns] = size.as_slice() else {
            return Err(ModelError::Shape { name: name.to_owned(), found: size, wanted: vec![-1, -1] });
        };
        let keep = keep.f_to_kind(Kind::Bool)?;
        let bits = match keep.device() {
            Device::Cpu => pack_on_host(&keep, rows, columns)?,
            _ => pack_on_device(&keep, rows, columns)?,
        };
        let mut packed = Self { powers: powers_beside(&bits)?, bits, columns, open: None };
        if rows * columns <= SMALL {
            let remove = keep.f_logical_not()?;
            packed.open = Some((keep, remove));
        }
        Ok(packed)
    }

    /// From bits as [`KeepMask::bits`] gives them.
    ///
    /// # Errors
    /// Bits of another shape, or set beyond the last column.
    pub fn from_bits(name: &str, bits: Tensor, [rows, columns]: [i64; 2]) -> Result<Self, ModelError> {
        let wanted = [rows, columns.saturating_add(7) / 8];
        if rows <= 0 || columns <= 0 || bits.kind() != Kind::Uint8 || bits.size() != wanted {
            return Err(ModelError::Shape { name: name.to_owned(), found: bits.size(), wanted: wanted.to_vec() });
        }
        let beyond = !0u8 << (columns % 8);
        if columns % 8 != 0 && bits.f_select(1, -1)?.f_bitwise_and(i64::from(beyond))?.f_any()?.f_int64_value(&[])? != 0
        {
            return Err(ModelError::Config(format!("the mask of `{name}` has bits beyond its {columns} columns")));
        }
        Self { powers: powers_beside(&bits)?, bits: bits.f_contiguous()?, columns, open: None }.opened()
    }

    fn opened(mut self) -> Result<Self, ModelError> {
        if self.rows() * self.columns <= SMALL {
            let keep = self.open_now()?;
            let remove = keep.f_logical_not()?;
            self.open = Some((keep, remove));
        }
        Ok(self)
    }

    fn rows(&self) -> i64 {
        self.bits.size()[0]
    }

    /// Rows and columns.
    pub fn size(&self) -> [i64; 2] {
        [self.rows(), self.columns]
    }

    /// Elements.
    pub fn numel(&self) -> u64 {
        (self.rows() * self.columns) as u64
    }

    /// The packed mask, u8 `[rows, ceil(columns / 8)]`; bits beyond the last column are zero.
    pub fn bits(&self) -> &Tensor {
        &self.bits
    }

    /// Where it is.
    pub fn device(&self) -> Device {
        self.bits.device()
    }

    /// The mask on another device; a second handle where it is there already.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn to_device(&self, device: Device) -> Result<Self, ModelError> {
        let moved = |tensor: &Tensor| tensor.f_to_device(device);
        let open = self.open.as_ref().map(|(keep, remove)| Ok::<_, ModelError>((moved(keep)?, moved(remove)?)));
        let bits = moved(&self.bits)?;
        Ok(Self { powers: powers_beside(&bits)?, bits, columns: self.columns, open: open.transpose()? })
    }

    /// A second handle on the same mask.
    pub fn shallow_clone(&self) -> Self {
        let open = self.open.as_ref().map(|(keep, remove)| (keep.shallow_clone(), remove.shallow_clone()));
        let powers = self.powers.as_ref().map(Tensor::shallow_clone);
        Self { bits: self.bits.shallow_clone(), columns: self.columns, powers, open }
    }

    /// bool `[rows, columns]`, true where an element survives.
    pub fn keep(&self) -> Tensor {
        match &self.open {
            Some((keep, _)) => keep.shallow_clone(),
            None => self.open_now().expect("bits of the right shape"),
        }
    }

    fn open_now(&self) -> Result<Tensor, ModelError> {
        match &self.powers {
            Some(powers) => spread(&self.bits, powers, self.columns, true),
            None => open_on_host(&self.bits, self.rows(), self.columns),
        }
    }

    /// bool `[rows, columns]`, true where an element is pruned.
    pub fn remove(&self) -> Tensor {
        match (&self.open, &self.powers) {
            (Some((_, remove)), _) => remove.shallow_clone(),
            (None, Some(powers)) => spread(&self.bits, powers, self.columns, false).expect("bits of the right shape"),
            (None, None) => self.keep().logical_not_(),
        }
    }

    /// Whether both masks have the same shape and keep the same elements.
    pub fn equal(&self, other: &KeepMask) -> bool {
        self.size() == other.size() && self.bits.equal(&other.bits)
    }

    /// Elements that survive.
    pub fn kept(&self) -> u64 {
        let bits = self.bits.to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0u8; bits.numel()];
        bits.view([-1]).copy_data(&mut bytes, bits.numel());
        bytes.iter().map(|byte| u64::from(byte.count_ones())).sum()
    }
}

/// 1, 2, 4, ... 128 on a device.
fn powers(device: Device) -> Result<Tensor, ModelError> {
    Ok(Tensor::f_from_slice(&[1u8, 2, 4, 8, 16, 32, 64, 128])?.f_to_device(device)?)
}

/// Made once per mask: an upload at each opening would wait for the device.
fn powers_beside(bits: &Tensor) -> Result<Option<Tensor>, ModelError> {
    Ok(if bits.device() == Device::Cpu { None } else { Some(powers(bits.device())?) })
}

/// Packs by tensor operations, where the mask is.
fn pack_on_device(keep: &Tensor, rows: i64, columns: i64) -> Result<Tensor, ModelError> {
    let full = keep.f_constant_pad_nd([0, (8 - columns % 8) % 8])?.f_view([rows, -1, 8])?;
    let weighted = full.f_to_kind(Kind::Uint8)?.f_mul(&powers(keep.device())?)?;
    Ok(weighted.f_sum_dim_intlist([-1i64].as_slice(), false, Kind::Uint8)?)
}

/// Opens by tensor operations, where the bits are: true where a bit is `set`.
fn spread(bits: &Tensor, powers: &Tensor, columns: i64, set: bool) -> Result<Tensor, ModelError> {
    let single = bits.f_unsqueeze(-1)?.f_bitwise_and_tensor(powers)?;
    let flags = if set { single.f_ne(0)? } else { single.f_eq(0)? };
    Ok(flags.f_view([bits.size()[0], -1])?.f_narrow(1, 0, columns)?)
}

/// libtorch's sums over eight members are slower than this by far on a CPU.
fn pack_on_host(keep: &Tensor, rows: i64, columns: i64) -> Result<Tensor, ModelError> {
    let keep = keep.f_contiguous()?;
    let mut flags = vec![false; keep.numel()];
    keep.f_view([-1])?.f_copy_data(&mut flags, keep.numel())?;
    let byte = |flags: &[bool]| flags.iter().enumerate().fold(0u8, |byte, (bit, &kept)| byte | u8::from(kept) << bit);
    let bytes: Vec<u8> = flags.chunks(columns.max(1) as usize).flat_map(|row| row.chunks(8).map(byte)).collect();
    Ok(Tensor::f_from_slice(&bytes)?.f_view([rows, -1])?)
}

/// A table of what each byte means, so that a byte costs one copy of eight.
fn open_on_host(bits: &Tensor, rows: i64, columns: i64) -> Result<Tensor, ModelError> {
    static FLAGS: OnceLock<Vec<[u8; 8]>> = OnceLock::new();
    let table = FLAGS.get_or_init(|| (0..=255u8).map(|byte| std::array::from_fn(|bit| byte >> bit & 1)).collect());
    let mut packed = vec![0u8; bits.numel()];
    bits.f_contiguous()?.f_view([-1])?.f_copy_data(&mut packed, bits.numel())?;
    let (width, columns) = (packed.len() / rows.max(1) as usize, columns as usize);
    let mut flags = vec![0u8; rows as usize * columns];
    for (row, packed) in flags.chunks_mut(columns).zip(packed.chunks(width)) {
        let (whole, rest) = row.as_chunks_mut::<8>();
        whole.iter_mut().zip(packed).for_each(|(flags, &byte)| *flags = table[usize::from(byte)]);
        if let (false, Some(&last)) = (rest.is_empty(), packed.last()) {
            rest.copy_from_slice(&table[usize::from(last)][..rest.len()]);
        }
    }
    Ok(Tensor::f_from_data_size(&flags, &[rows, columns as i64], Kind::Bool)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(rows: i64, columns: i64) -> Tensor {
        (Tensor::arange(rows * columns, (Kind::Float, Device::Cpu)) * 1.7).sin().view([rows, columns]).gt(0.2)
    }

    #[test]
    fn packing_and_opening_are_inverse_at_every_width() {
        for columns in [1, 7, 8, 9, 16, 31] {
            let keep = pattern(5, columns);
            let packed = KeepMask::pack("l", &keep).unwrap();
            let read = KeepMask::from_bits("l", packed.bits().shallow_clone(), [5, columns]).unwrap();
            for mask in [&packed, &read] {
                assert!(mask.keep().equal(&keep) && mask.remove().equal(&keep.logical_not()), "{columns}");
                assert_eq!(mask.kept() as i64, keep.sum(Kind::Int64).int64_value(&[]));
            }
        }
    }

    #[test]
    fn large_masks_hold_their_bits_only() {
        let keep = pattern(1025, 1025);
        let packed = KeepMask::pack("l", &keep).unwrap();
        assert!(packed.open.is_none());
        assert!(packed.keep().equal(&keep) && packed.remove().equal(&keep.logical_not()));
    }

    /// What runs on another device is the same function.
    #[test]
    fn opening_by_tensor_operations_agrees() {
        let keep = pattern(4, 13);
        let bits = pack_on_host(&keep, 4, 13).unwrap();
        assert!(pack_on_device(&keep, 4, 13).unwrap().equal(&bits));
        let powers = powers(Device::Cpu).unwrap();
        assert!(spread(&bits, &powers, 13, true).unwrap().equal(&keep));
        assert!(spread(&bits, &powers, 13, false).unwrap().equal(&keep.logical_not()));
    }

    #[test]
    fn bits_of_another_shape_are_refused() {
        let bits = Tensor::zeros([4, 2], (Kind::Uint8, Device::Cpu));
        for size in [[4, 17], [4, 8], [3, 16], [0, 0], [4, i64::MAX]] {
            assert!(KeepMask::from_bits("l", bits.shallow_clone(), size).is_err(), "{size:?}");
        }
        let beyond = Tensor::from_slice(&[0u8, 1, 0, 16]).view([2, 2]);
        assert!(KeepMask::from_bits("l", beyond.shallow_clone(), [2, 12]).is_err());
        assert_eq!(KeepMask::from_bits("l", beyond, [2, 13]).unwrap().kept(), 2);
    }
}
