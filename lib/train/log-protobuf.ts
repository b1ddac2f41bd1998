// Protocol buffers as far as TensorBoard's events need them: fields written one after another, nothing read.

/** Bytes of one field, or of a message: its fields end to end. */
export type Field = Uint8Array;

const WIRE_VARINT = 0;
const WIRE_64 = 1;
const WIRE_BYTES = 2;
const WIRE_32 = 5;

/** Whole numbers from 0 to 2^53 - 1. */
export function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  for (; value >= 0x80; value = Math.floor(value / 0x80)) bytes.push((value % 0x80) | 0x80);
  return Uint8Array.from([...bytes, value]);
}

const key = (field: number, wire: number): Uint8Array => varint(field * 8 + wire);

export const whole = (field: number, value: number): Field => Buffer.concat([key(field, WIRE_VARINT), varint(value)]);

export function double(field: number, value: number): Field {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return Buffer.concat([key(field, WIRE_64), bytes]);
}

export function float(field: number, value: number): Field {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.concat([key(field, WIRE_32), bytes]);
}

/** A text (UTF-8), or a message of these fields. */
export function bytes(field: number, value: string | Field[]): Field {
  const content = typeof value === 'string' ? Buffer.from(value, 'utf8') : Buffer.concat(value);
  return Buffer.concat([key(field, WIRE_BYTES), varint(content.length), content]);
}
