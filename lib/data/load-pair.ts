// From a reference to what the model reads: the picture's file hashed, decoded and cropped, or its features from the cache.
import { createHash, webcrypto } from 'node:crypto';
import { MiniGptError } from '../errors.js';
import { readPicture, type PictureOptions } from '../image.js';
import type { Random } from '../random.js';
import { cut, drawCrop, type Rectangle } from './crop.js';
import { wrongTurns } from './listed.js';
import type { DatasetConfig, LoaderOptions } from './options.js';
import type { LoadedPair } from './pair.js';
import type { Reference } from './source.js';

/** Larger files are hashed beside the event loop. */
const hashedAtOnce = 2 ** 18;

/**
 * Reads, hashes and decodes one pair. `draws` is what the crop is drawn with; without it the picture is whole, and the cache is asked first:
 * a random part is never seen twice.
 *
 * Errors: those of Reference.read and readPicture, ERR_FILE_FORMAT (empty caption).
 */
export async function loadPair(
  reference: Reference,
  config: DatasetConfig,
  options: Pick<LoaderOptions, 'maxPixels' | 'lookup'>,
  draws?: Random,
): Promise<LoadedPair> {
  const { picture, turns } = await reference.read();
  const wrong = wrongTurns(turns);
  if (wrong !== undefined) throw new MiniGptError('ERR_FILE_FORMAT', wrong);
  const pair = { dataset: config.name, name: reference.name, turns };
  const content = await sha256(picture);
  if (!config.crop || !draws) {
    const key = keyOf(content);
    const features = await options.lookup?.(key);
    if (features) return { ...pair, key, features };
    return { ...pair, key, pixels: await readPicture(picture, pictureOptions(options)) };
  }
  const whole = await readPicture(picture, pictureOptions(options));
  const part = drawCrop(whole.width, whole.height, config.crop, draws);
  return { ...pair, key: keyOf(content, part), pixels: cut(whole, part) };
}

/** How training reads a picture. */
export function pictureOptions({ maxPixels }: Pick<LoaderOptions, 'maxPixels'>): PictureOptions {
  return { limitName: 'run.max_pixels', ...(maxPixels === undefined ? {} : { maxPixels }) };
}

async function sha256(bytes: Uint8Array): Promise<Uint8Array> {
  if (bytes.length <= hashedAtOnce) return createHash('sha256').update(bytes).digest();
  return new Uint8Array(await webcrypto.subtle.digest('SHA-256', bytes));
}

/** SHA-256 of the file's SHA-256 and the part of the picture; of a whole picture the file's own. */
function keyOf(content: Uint8Array, part?: Rectangle): string {
  if (!part) return Buffer.from(content).toString('hex');
  const { left, top, width, height } = part;
  return createHash('sha256').update(content).update(`crop ${left} ${top} ${width} ${height}`).digest('hex');
}
