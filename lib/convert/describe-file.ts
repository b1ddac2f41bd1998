// What a file of weights is, by its contents.
import { stat } from 'node:fs/promises';
import type { GgufKey } from '../addon.js';
import { kindOf, openCheckpoint } from '../formats/checkpoint.js';
import { openGguf } from '../formats/gguf.js';
import { describeParts } from '../formats/recognise.js';
import { DTYPE_BYTES, valueCount } from '../formats/tensor.js';

export interface FileDescription {
  path: string;
  format: 'gguf' | 'pth' | 'safetensors' | 'hugging-face';
  /** One phrase: format, architecture, what of MiniGPT-4 it is. */
  what: string;
  /** GGUF's `general.architecture`; null elsewhere. */
  architecture: string | null;
  bytes: number;
  parameters: number;
  notes: string[];
  keys: GgufKey[];
  types: { type: string; tensors: number; bytes: number }[];
  tensors: { name: string; type: string; shape: number[]; bytes: number }[];
}

const GGUF_KINDS: Readonly<Record<string, string>> = {
  llama: 'a language model',
  minigpt4: 'a MiniGPT-4 model',
  'minigpt4-projection': 'a MiniGPT-4 projection',
};

/** Reads heads only, no weights. Errors: those of the readers. */
export async function describeFile(path: string): Promise<FileDescription> {
  return (await kindOf(path)) === 'gguf' ? describeGguf(path) : describeCheckpoint(path);
}

async function describeGguf(path: string): Promise<FileDescription> {
  const file = await openGguf(path);
  try {
    const value = file.keys.find(({ key }) => key === 'general.architecture')?.value;
    const architecture = typeof value === 'string' ? value : null;
    const has = (name: string): boolean => file.tensors.some((tensor) => tensor.name === name);
    const kind =
      architecture === 'minigpt4'
        ? `a MiniGPT-4 ${has('token_embd.weight') ? 'bundle' : 'vision file'} ${has('qf.query_tokens') ? 'with' : 'without'} a Q-Former`
        : architecture !== null && Object.hasOwn(GGUF_KINDS, architecture)
          ? GGUF_KINDS[architecture]!
          : 'not a part of MiniGPT-4';
    const tensors = file.tensors.map(({ name, type, shape, bytes }) => ({ name, type, shape: [...shape], bytes }));
    const grouped = file.tensors.filter((tensor) => tensor.grouped).length;
    return {
      path,
      format: 'gguf',
      what: `GGUF ${file.version}, architecture ${architecture ?? 'unknown'}: ${kind}`,
      architecture,
      notes: [
        ...(file.files.length > 1 ? [`${file.files.length} parts`] : []),
        ...(grouped > 0 ? [`${grouped} matrices lie in the CPU's layout: no GPU and no other program reads them`] : []),
      ],
      keys: [...file.keys],
      ...(await totals(file.files, tensors)),
    };
  } finally {
    await file.close();
  }
}

async function describeCheckpoint(path: string): Promise<FileDescription> {
  const checkpoint = await openCheckpoint(path);
  try {
    const names = { pth: 'PyTorch checkpoint', safetensors: 'safetensors', 'hugging-face': 'Hugging Face folder' };
    const tensors = [...checkpoint.tensors.values()].map(({ name, dtype, shape }) => ({
      name,
      type: dtype,
      shape: [...shape],
      bytes: valueCount(name, shape) * DTYPE_BYTES[dtype],
    }));
    return {
      path,
      format: checkpoint.format,
      what: `${names[checkpoint.format]}: ${describeParts(checkpoint)}`,
      architecture: null,
      notes: [...checkpoint.notes],
      keys: [],
      ...(await totals(checkpoint.files, tensors)),
    };
  } finally {
    await checkpoint.close();
  }
}

async function totals(
  files: readonly string[],
  tensors: FileDescription['tensors'],
): Promise<Pick<FileDescription, 'bytes' | 'parameters' | 'types' | 'tensors'>> {
  let bytes = 0;
  for (const file of files) bytes += (await stat(file)).size;
  const types = new Map<string, { type: string; tensors: number; bytes: number }>();
  for (const tensor of tensors) {
    const sum = types.get(tensor.type) ?? { type: tensor.type, tensors: 0, bytes: 0 };
    sum.tensors++;
    sum.bytes += tensor.bytes;
    types.set(tensor.type, sum);
  }
  const parameters = tensors.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0);
  return { bytes, parameters, tensors, types: [...types.values()].sort((a, b) => b.bytes - a.bytes) };
}
