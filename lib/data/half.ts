// Float32 numbers as IEEE half precision, for features that are kept on disk.

/** The nearest half-precision numbers' bits, ties to the even one; what is too large becomes infinity. */
export function toHalf(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(bits.length);
  for (let i = 0; i < bits.length; i++) halves[i] = halfBits(bits[i]!);
  return halves;
}

function halfBits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00; // NaN
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // 65520, halfway beyond the largest
  if (magnitude < 0x38800000) {
    // Below the smallest normal half, 2^-14: a multiple of 2^-24. Below 2^-25, half of one, it is zero.
    const shift = 126 - (magnitude >>> 23);
    if (shift > 24) return sign;
    const fraction = (magnitude & 0x7fffff) | 0x800000;
    return sign | roundShift(fraction, shift);
  }
  return sign | roundShift(magnitude - 0x38000000, 13); // the exponent's bias falls from 127 to 15; a carry grows the exponent rightly
}

/** value / 2^shift to the nearest whole number, ties to the even one. */
function roundShift(value: number, shift: number): number {
  const kept = value >>> shift;
  const rest = value & ((1 << shift) - 1);
  const tie = 1 << (shift - 1);
  return rest > tie || (rest === tie && kept & 1) ? kept + 1 : kept;
}
