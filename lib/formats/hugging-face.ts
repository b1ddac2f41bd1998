// Hugging Face model folders: weights in one file or in shards with an index, as safetensors or as PyTorch's .bin.
import { readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { MiniGptError } from '../errors.js';
import { InputFile, systemError } from './input-file.js';
import { openPth } from './pth.js';
import { openSafetensors } from './safetensors.js';
import type { CheckedRegion, Checkpoint, LazyTensor } from './tensor.js';

/** JSON files of a model folder are a few kilobytes; an index of 10,000 tensors has about 1 MB. */
const LARGEST_JSON = 4 << 20;
const MOST_SHARDS = 1000;

const INDEXES = ['model.safetensors.index.json', 'pytorch_model.bin.index.json'];

/** The index or single file that a folder's weights are found through; undefined where there is none. */
async function entryPoint(folder: string): Promise<string | undefined> {
  let names: string[];
  try {
    names = (await readdir(folder)).sort();
  } catch (error) {
    throw systemError(folder, error);
  }
  const known = [INDEXES[0]!, 'model.safetensors', INDEXES[1]!, 'pytorch_model.bin'].find((name) =>
    names.includes(name),
  );
  if (known) return known;
  // Files under other names: only where there is no doubt which one.
  for (const ending of ['.safetensors', '.bin', '.pth']) {
    const found = names.filter((name) => name.endsWith(ending) && name !== 'training_args.bin');
    if (found.length === 1) return found[0];
  }
  return undefined;
}

export async function isModelFolder(folder: string): Promise<boolean> {
  return (await entryPoint(folder)) !== undefined;
}

/** Opens all the weights of a folder. Errors: ERR_FILE_NOT_FOUND (no weights, a shard is missing), those of the readers. */
export async function openModelFolder(folder: string): Promise<Checkpoint> {
  const entry = await entryPoint(folder);
  if (!entry) {
    throw new MiniGptError(
      'ERR_FILE_NOT_FOUND',
      `${folder} holds no model weights; expected model.safetensors or pytorch_model.bin, or their index.json`,
    );
  }
  const map = INDEXES.includes(entry) ? await readIndex(join(folder, entry)) : undefined;
  const names = map ? [...new Set(map.values())].sort() : [entry];
  if (names.length > MOST_SHARDS)
    throw new MiniGptError(
      'ERR_FILE_FORMAT',
      `${join(folder, entry)} names ${names.length} files; expected at most ${MOST_SHARDS}`,
    );

  const shards = new Map<string, Checkpoint>();
  const close = async (): Promise<void> => {
    for (const shard of shards.values()) await shard.close();
  };
  try {
    for (const name of names) {
      const path = join(folder, name);
      shards.set(name, await (name.endsWith('.safetensors') ? openSafetensors(path) : openPth(path)));
    }
    const tensors = new Map<string, LazyTensor>();
    if (map) {
      for (const [name, file] of map) {
        const tensor = shards.get(file)!.tensors.get(name);
        if (!tensor)
          throw new MiniGptError(
            'ERR_MISSING_TENSOR',
            `${join(folder, file)} lacks the tensor ${name}, which ${entry} says it holds`,
          );
        tensors.set(name, tensor);
      }
    } else {
      for (const [name, tensor] of shards.get(entry)!.tensors) tensors.set(name, tensor);
    }
    const notes = map ? [`${names.length} files by ${entry}`] : [entry];
    return {
      path: folder,
      format: 'hugging-face',
      files: names.map((name) => join(folder, name)),
      tensors,
      notes,
      close,
      regions: async () => {
        const regions: CheckedRegion[] = [];
        for (const shard of shards.values()) regions.push(...((await shard.regions?.()) ?? []));
        return regions;
      },
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function readIndex(path: string): Promise<Map<string, string>> {
  const index = await readJson(path);
  const map = index['weight_map'];
  if (typeof map !== 'object' || map === null) throw new MiniGptError('ERR_FILE_FORMAT', `${path} has no weight_map`);
  const found = new Map<string, string>();
  for (const [name, file] of Object.entries(map)) {
    // A name from a file must not lead out of the folder.
    if (
      typeof file !== 'string' ||
      file !== basename(file) ||
      file === '' ||
      file === '..' ||
      file === '.' ||
      file.includes('\\')
    ) {
      throw new MiniGptError(
        'ERR_FILE_FORMAT',
        `${path}: ${name} is said to lie in '${String(file)}'; expected the name of a file in the same folder`,
      );
    }
    found.set(name, file);
  }
  if (!found.size) throw new MiniGptError('ERR_FILE_FORMAT', `${path} has an empty weight_map`);
  return found;
}

/** A JSON object. Errors: those of InputFile.open, ERR_FILE_FORMAT. */
export async function readJson(path: string): Promise<Record<string, unknown>> {
  const file = await InputFile.open(path);
  let value: unknown;
  try {
    if (file.size > LARGEST_JSON)
      throw new MiniGptError(
        'ERR_FILE_FORMAT',
        `${path} has ${file.size} bytes; expected JSON of at most ${LARGEST_JSON}`,
      );
    const text = (await file.read(0, file.size)).toString('utf8');
    try {
      value = JSON.parse(text);
    } catch (error) {
      throw new MiniGptError('ERR_FILE_FORMAT', `${path} is no JSON: ${(error as Error).message}`, { cause: error });
    }
  } finally {
    await file.close();
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new MiniGptError('ERR_FILE_FORMAT', `${path} holds no JSON object`);
  return value as Record<string, unknown>;
}

/** A folder's JSON file, or undefined where it has none. */
export async function readOptionalJson(path: string): Promise<Record<string, unknown> | undefined> {
  try {
    return await readJson(path);
  } catch (error) {
    if (error instanceof MiniGptError && error.code === 'ERR_FILE_NOT_FOUND') return undefined;
    throw error;
  }
}

/** The bytes of a small file (a tokenizer). Errors: those of InputFile.open. */
export async function readSmallFile(path: string, largest = 64 << 20): Promise<Uint8Array> {
  const file = await InputFile.open(path);
  try {
    if (file.size > largest)
      throw new MiniGptError('ERR_FILE_FORMAT', `${path} has ${file.size} bytes; expected at most ${largest}`);
    return await file.read(0, file.size);
  } finally {
    await file.close();
  }
}
