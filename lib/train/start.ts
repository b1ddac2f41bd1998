// What a run begins with: a fresh projection, the model's own, or one from a file; and the files that it is bound to.
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import type { NativeModelInfo, NativeTrainerState, ProjectionValues } from '../addon.js';
import { MiniGptError } from '../errors.js';
import { readProjection } from '../export.js';
import { systemError } from '../formats/input-file.js';
import { Random } from '../random.js';
import type { ModelFile } from './checkpoint.js';
import { findCheckpoint } from './run-folder.js';

type Widths = Pick<NativeModelInfo, 'projectionInput' | 'width'>;

/** As PyTorch's nn.Linear is born: weight and bias uniform in ±1/√(inputs). The same seed gives the same numbers. */
export function freshProjection({ projectionInput: input, width: output }: Widths, seed: number): ProjectionValues {
  const random = new Random(seed, 'projection');
  const bound = 1 / Math.sqrt(input);
  const draw = (count: number) => Float32Array.from({ length: count }, () => (2 * random.uniform() - 1) * bound);
  return { weight: draw(output * input), bias: draw(output) };
}

/**
 * The projection of a file: `.pth`, projection file, model file, or a checkpoint of a run; of a run's folder the latest one. Errors: those of
 * readProjection, among them ERR_FILE_FORMAT for numbers that are not finite, and ERR_SHAPE (of another width).
 */
export async function projectionFrom(path: string, model: Widths): Promise<ProjectionValues> {
  const file = (await isFile(path)) ? path : await findCheckpoint(path);
  const { input, output, weight, bias } = await readProjection(file);
  checkWidths(`the projection ${file}`, { input, output }, model);
  return { weight, bias };
}

/** Error: ERR_SHAPE with what is expected and found. */
export function checkWidths(what: string, found: { input: number; output: number }, model: Widths): void {
  if (found.input === model.projectionInput && found.output === model.width) return;
  throw new MiniGptError(
    'ERR_SHAPE',
    `${what} leads from ${found.input} to ${found.output} numbers; expected ${model.projectionInput} to ${model.width}, ` +
      'the widths of the model: it belongs to another one',
  );
}

/** A trainer's state before the first step. */
export function firstState(values: ProjectionValues): NativeTrainerState {
  const zeros = () => ({
    weight: new Float32Array(values.weight.length),
    bias: new Float32Array(values.bias.length),
  });
  return { step: 0, values, firstMoment: zeros(), secondMoment: zeros() };
}

/** SHA-256 of the files whose numbers a run depends on. Errors: ERR_FILE_NOT_FOUND, ERR_FILE_READ. */
export async function hashModelFiles(files: Record<string, string | undefined>): Promise<ModelFile[]> {
  const hashed: ModelFile[] = [];
  for (const [role, path] of Object.entries(files)) {
    if (path === undefined) continue;
    const hash = createHash('sha256');
    try {
      for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
    } catch (error) {
      throw systemError(path, error);
    }
    hashed.push({ role, file: basename(path), sha256: hash.digest('hex') });
  }
  return hashed;
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile() && !['latest', 'best'].includes(basename(path));
  } catch (error) {
    throw systemError(path, error);
  }
}
