// Which type a tensor is stored in, given the type that was asked for and the tensor's shape.
import type { TypeName } from '../addon.js';
import type { WritableType } from './options.js';

/** Values and bytes of a block. */
export const BLOCKS: Readonly<Record<TypeName, { values: number; bytes: number }>> = {
  f32: { values: 1, bytes: 4 },
  f16: { values: 1, bytes: 2 },
  bf16: { values: 1, bytes: 2 },
  q8_0: { values: 32, bytes: 34 },
  q5_0: { values: 32, bytes: 22 },
  q5_1: { values: 32, bytes: 24 },
  q4_0: { values: 32, bytes: 18 },
  q4_1: { values: 32, bytes: 20 },
  q2_k: { values: 256, bytes: 84 },
  q3_k: { values: 256, bytes: 110 },
  q4_k: { values: 256, bytes: 144 },
  q5_k: { values: 256, bytes: 176 },
  q6_k: { values: 256, bytes: 210 },
};

/** The type of blocks of 32 that takes a K-quant's place where rows are no multiple of 256. */
const NARROWER: Partial<Record<TypeName, TypeName>> = { q4_k: 'q5_0', q5_k: 'q5_1', q6_k: 'q8_0' };

/** `general.file_type`, which is only a label. */
export const FILE_TYPES: Readonly<Record<WritableType, number>> = {
  f32: 0,
  f16: 1,
  q4_0: 2,
  q4_1: 3,
  q8_0: 7,
  q5_0: 8,
  q5_1: 9,
  q4_k: 14,
  q5_k: 16,
  q6_k: 18,
  bf16: 32,
};

/** Which type a part's matrices are asked to have by `--type`. */
export function partType(part: 'vit' | 'qformer' | 'projection' | 'llm', type: WritableType): WritableType {
  // The only part that is trained, stored in float32, and below 1 % of the whole.
  if (part === 'projection') return 'f32';
  // Published in float32: in half precision it would lose what the fp16 parts beside it never had.
  if (part === 'qformer' && (type === 'f16' || type === 'bf16')) return 'f32';
  return type;
}

/** Vectors are F32; matrices have the wanted type, or the nearest one whose blocks divide their rows. */
export function storedType(wanted: TypeName, shape: readonly number[]): TypeName {
  if (shape.length < 2) return 'f32';
  const row = shape.at(-1)!;
  let type = wanted;
  if (row % BLOCKS[type].values) type = NARROWER[type] ?? 'f16';
  if (row % BLOCKS[type].values) type = 'f16';
  return type;
}

/** Tables whose rows are taken one by one; every other tensor of two dimensions is multiplied with (native/models/tensor_list.cpp). */
const TABLES = ['v.position_embd.weight', 'qf.query_tokens'];

/** Whether the CPU's layout groups the rows of a tensor. */
export function isGrouped(name: string, shape: readonly number[]): boolean {
  return shape.length === 2 && !TABLES.includes(name);
}

/**
 * The output matrix of a language model in fewer than 6 bits is Q6_K, as in llama.cpp's files: it decides between tokens,
 * and it is small beside the layers.
 */
export function outputType(wanted: TypeName): TypeName {
  return ['q4_0', 'q4_1', 'q5_0', 'q5_1', 'q4_k', 'q5_k'].includes(wanted) ? 'q6_k' : wanted;
}

export function bytesOf(type: TypeName, shape: readonly number[]): number {
  const block = BLOCKS[type];
  return (shape.reduce((count, size) => count * size, 1) / block.values) * block.bytes;
}
