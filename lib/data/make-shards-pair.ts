// One pair as a shard holds it: the picture's file, and its caption as JSON.
import { MiniGptError } from '../errors.js';
import { readPicture, type DecodedPicture } from '../image.js';
import type { BuildOptions } from './make-shards-options.js';
import { wrongTurns } from './listed.js';
import type { MetPair } from './every-pair.js';

export interface BuiltPair {
  /** 'jpg', 'png' or 'webp'. */
  kind: string;
  picture: Uint8Array;
  /** What its JSON has; the shard adds the key. */
  fields: { caption: string; name: string; question?: string };
}

/**
 * The picture is decoded once to see that it can be. Errors: what reading and readPicture give, ERR_FILE_FORMAT (no caption, or several: a shard
 * has one a picture).
 */
export async function buildPair(met: MetPair, options: BuildOptions): Promise<BuiltPair> {
  const { picture, turns } = await met.read();
  const wrong = wrongTurns(turns);
  if (wrong !== undefined) throw new MiniGptError('ERR_FILE_FORMAT', wrong);
  if (turns.length > 1)
    throw new MiniGptError(
      'ERR_FILE_FORMAT',
      `has a conversation of ${turns.length} answers; a shard holds one caption`,
    );
  const { answer, question } = turns[0]!;
  const fields = { caption: answer, name: met.name, ...(question === undefined ? {} : { question }) };
  const pixels = await readPicture(picture, options.maxPixels === undefined ? {} : { maxPixels: options.maxPixels });
  const kind = storedKind(picture);
  if (kind !== undefined && fits(pixels, options)) return { kind, picture, fields };
  return { kind: 'jpg', picture: await jpegOf(pixels, options), fields };
}

/** The ending of files that shards hold as they are. */
function storedKind(bytes: Uint8Array): string | undefined {
  const start = Buffer.from(bytes.subarray(0, 12)).toString('latin1');
  if (start.startsWith('\xff\xd8\xff')) return 'jpg';
  if (start.startsWith('\x89PNG')) return 'png';
  return start.startsWith('RIFF') && start.endsWith('WEBP') ? 'webp' : undefined;
}

function fits({ width, height }: DecodedPicture, { resize, resizeMode = 'keep' }: BuildOptions): boolean {
  if (resize === undefined) return true;
  return resizeMode === 'keep' ? Math.min(width, height) <= resize : width === resize && height === resize;
}

async function jpegOf({ data, width, height }: DecodedPicture, options: BuildOptions): Promise<Uint8Array> {
  const { default: sharp } = await import('sharp');
  const { resize, resizeMode = 'keep', quality = 95 } = options;
  let pipeline = sharp(data, { raw: { width, height, channels: 3 } });
  if (resize !== undefined) {
    pipeline =
      resizeMode === 'keep'
        ? pipeline.resize(resize, resize, { fit: 'outside', withoutEnlargement: true })
        : pipeline.resize(resize, resize, {
            fit: resizeMode === 'squash' ? 'fill' : 'contain',
            background: '#ffffff',
          });
  }
  return pipeline.jpeg({ quality }).toBuffer();
}
