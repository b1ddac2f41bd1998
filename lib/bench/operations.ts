// Counts that turn times into rates: what a test reads and computes, from the tensors of a model file.
import type { GgufTensorInfo } from '../addon.js';
import { MiniGptError } from '../errors.js';

/** A language model's sizes, from its tensors. */
function matrices(tensors: GgufTensorInfo[]): { layers: GgufTensorInfo[]; output: GgufTensorInfo } {
  const layers = tensors.filter(({ name, shape }) => name.startsWith('blk.') && shape.length === 2);
  const output =
    tensors.find(({ name }) => name === 'output.weight') ?? tensors.find(({ name }) => name === 'token_embd.weight');
  if (!output) throw new MiniGptError('ERR_MISSING_TENSOR', 'the language model has no tensor token_embd.weight');
  return { layers, output };
}

/** Bytes of weights that one generated token reads: all of the language model but the embedding table, of which it reads one row. */
export function bytesPerToken(tensors: GgufTensorInfo[]): number {
  const { output } = matrices(tensors);
  const read = tensors.filter((tensor) => tensor.name.startsWith('blk.') || tensor.name === 'output_norm.weight');
  return [...read, output].reduce((sum, { bytes }) => sum + bytes, 0);
}

const productOf = (shape: number[]): number => shape.reduce((product, size) => product * size, 1);

/**
 * Products and sums, counted as two, of the matrix products (attention's included) that read a prompt of `count` tokens: logits are
 * computed for its last row alone.
 */
export function promptOperations(tensors: GgufTensorInfo[], count: number): number {
  const { layers, output } = matrices(tensors);
  let sum = 2 * productOf(output.shape);
  for (const { name, shape } of layers) {
    sum += 2 * count * productOf(shape);
    // a row looks at itself and those before it: a product with their keys, and one with their values
    if (name.endsWith('attn_q.weight')) sum += 4 * shape[0]! * ((count * (count + 1)) / 2);
  }
  return sum;
}

/** Whether a tensor is the ViT's: a program without a Q-Former has these alone. */
export const isOfVit = ({ name }: GgufTensorInfo): boolean => name.startsWith('v.');

/** The same of encoding one picture, with the Q-Former where there is one. Error ERR_MISSING_TENSOR: there is no ViT. */
export function encodingOperations(tensors: GgufTensorInfo[]): number {
  const shapeOf = (wanted: string): [number, number] => {
    const found = tensors.find(({ name }) => name === wanted);
    if (!found) throw new MiniGptError('ERR_MISSING_TENSOR', `the vision file has no tensor ${wanted}`);
    return found.shape as [number, number];
  };
  const [seen, width] = shapeOf('v.position_embd.weight'); // patches and the class token
  const hasQueries = tensors.some(({ name }) => name === 'qf.query_tokens');
  const [queries, queryWidth] = hasQueries ? shapeOf('qf.query_tokens') : [0, 0];
  const attention = (rows: number, keys: number, columns: number) => 4 * rows * keys * columns;
  let sum = 0;
  for (const { name, shape } of tensors) {
    if (shape.length !== 2 || name === 'v.position_embd.weight' || name === 'qf.query_tokens') continue;
    const rows = name === 'v.patch_embd.weight' ? seen - 1 : /^v\.|cross_[kv]\./.test(name) ? seen : queries;
    sum += 2 * rows * productOf(shape);
    if (name.endsWith('attn_qkv.weight')) sum += attention(seen, seen, width);
    if (name.endsWith('.attn_q.weight')) sum += attention(queries, queries, queryWidth);
    if (name.endsWith('.cross_q.weight')) sum += attention(queries, seen, queryWidth);
  }
  return sum;
}
