// Decodes any picture to upright 8-bit RGB. sharp decodes; the resampling to the model's square is native (Pillow's bicubic).
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Sharp } from 'sharp';
import { MiniGptError, abortedError, toMiniGptError } from './errors.js';

/** Pixels that are decoded already: rows from the top, channels side by side (1 gray, 2 gray + alpha, 3 RGB, 4 RGBA). */
export interface RawPicture {
  data: Uint8Array | Uint8ClampedArray;
  width: number;
  height: number;
  channels: 1 | 2 | 3 | 4;
}

/**
 * What a picture may be given as: a path, a `file:` URL or a `data:` URI, the bytes of a file in any form, a stream of them, a sharp
 * pipeline, or raw pixels.
 */
export type Picture =
  | string
  | URL
  | Uint8Array
  | ArrayBuffer
  | SharedArrayBuffer
  | Blob
  | NodeJS.ReadableStream
  | ReadableStream<Uint8Array>
  | Sharp
  | RawPicture;

/** RGB bytes [height, width, 3]. */
export interface DecodedPicture {
  data: Uint8Array;
  width: number;
  height: number;
}

export interface PictureOptions {
  /** Pixels (width times height) that a picture may have at most. Default: 100 million. */
  maxPixels?: number;
  /** Bytes that a stream may give at most. Default: 256 MiB. */
  maxBytes?: number;
  /** How the error of a picture that is too large calls maxPixels. Default: as options and the command line have it. */
  limitName?: string;
  signal?: AbortSignal;
}

const defaultMaxPixels = 100_000_000;
const defaultMaxBytes = 256 * 2 ** 20;
/** Raw pixels that are converted in one turn of the event loop: a few milliseconds. */
const slicePixels = 2 ** 18;

/** How a picture is called in an error's sentence. */
export function pictureName(picture: unknown): string {
  if (picture instanceof URL) picture = picture.href;
  if (typeof picture !== 'string') return 'the picture';
  return picture.startsWith('data:')
    ? 'the picture of the data: URI'
    : `the picture ${picture.length > 200 ? `${picture.slice(0, 200)}…` : picture}`;
}

/**
 * Listens to the errors of a picture that is a Node stream, which end the process where nobody does: to be called before anything else is
 * awaited or can fail. Whoever reads the stream is told its error all the same.
 */
export function heed(picture: unknown): void {
  if (typeof picture !== 'object' || picture === null || !(Symbol.asyncIterator in picture)) return;
  if ('on' in picture && typeof picture.on === 'function') (picture as NodeJS.ReadableStream).on('error', () => {});
}

/**
 * Any picture as RGB: turned upright as its EXIF data says, transparency laid over white, 16-bit, gray and CMYK converted, of an animation
 * the first frame. Pixels of RGB pictures are taken as they are stored, as Pillow and so the original does: an embedded colour
 * profile is not applied (but for CMYK, which means nothing without one).
 *
 * Errors: ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_IMAGE (no picture, damaged, too large), ERR_UNSUPPORTED (http URLs),
 * ERR_ARGUMENT (something else was given), ERR_ABORTED.
 */
export async function readPicture(picture: Picture, options: PictureOptions = {}): Promise<DecodedPicture> {
  heed(picture);
  const maxPixels = options.maxPixels ?? defaultMaxPixels;
  if (options.signal?.aborted) throw abortedError(options.signal);
  const name = pictureName(picture);
  const limit = { maxPixels, name: options.limitName ?? 'maxPixels (--max-pixels)' };
  if (isRaw(picture)) return fromRaw(picture, limit, options.signal);
  const { default: sharp } = await import('sharp');
  const source =
    picture instanceof sharp
      ? await fromPipeline(picture, name)
      : await toSource(picture, options.maxBytes ?? defaultMaxBytes, options.signal);
  if (typeof source !== 'string' && source.byteLength === 0)
    throw new MiniGptError('ERR_IMAGE', `${name} is empty (0 bytes)`);

  // the header first: what is too large is refused before a pixel of it is decoded
  let header;
  try {
    header = await sharp(source, { limitInputPixels: false }).metadata();
  } catch (error) {
    throw imageError(name, error);
  }
  checkSize(name, header.width, header.height, limit);
  if (options.signal?.aborted) throw abortedError(options.signal);
  try {
    const { data, info } = await sharp(source, {
      limitInputPixels: maxPixels,
      failOn: 'error', // a cut-off file is an error, a warning of a careless camera is not
      ignoreIcc: header.space !== 'cmyk',
    })
      .autoOrient()
      .flatten({ background: '#ffffff' })
      .toColourspace('srgb')
      .raw({ depth: 'uchar' })
      .toBuffer({ resolveWithObject: true });
    if (info.channels !== 3)
      throw new MiniGptError('ERR_IMAGE', `${name}: expected 3 channels after decoding, found ${info.channels}`);
    return { data, width: info.width, height: info.height };
  } catch (error) {
    throw imageError(name, error);
  }
}

function imageError(name: string, error: unknown): MiniGptError {
  if (error instanceof MiniGptError) return error;
  // sharp's heading, which may stand alone, and what libvips says line by line; that it looked for a footer tells nobody anything
  const [heading = '', detail = ''] = (error instanceof Error ? error.message : String(error))
    .replace(/source: bad seek to \d+(\n|$)/g, '')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
  const reason = (heading.endsWith(':') ? `${heading} ${detail}` : heading).trim().replace(/:$/, '');
  const words = /unsupported image format/i.test(reason)
    ? `${name} is no picture that can be read: expected a JPEG, PNG, WebP, GIF, AVIF, TIFF or SVG file, found other contents`
    : `${name} cannot be decoded, it is damaged or cut off: ${reason}`;
  return new MiniGptError('ERR_IMAGE', words, { cause: error });
}

interface Limit {
  maxPixels: number;
  /** What raises it. */
  name: string;
}

function checkSize(name: string, width: number, height: number, { maxPixels, name: limit }: Limit): void {
  if (!(width >= 1 && height >= 1)) {
    throw new MiniGptError('ERR_IMAGE', `${name}: expected at least one pixel, found ${width} x ${height}`);
  }
  if (width * height > maxPixels) {
    const million = (pixels: number) => (pixels < 1e6 ? String(pixels) : `${Math.round(pixels / 1e4) / 100} million`);
    throw new MiniGptError(
      'ERR_IMAGE',
      `${name} is too large: expected at most ${million(maxPixels)} pixels, ` +
        `found ${width} x ${height} (${million(width * height)}); ${limit} raises the limit`,
    );
  }
}

function isRaw(picture: unknown): picture is RawPicture {
  return (
    typeof picture === 'object' && picture !== null && 'data' in picture && 'width' in picture && 'height' in picture
  );
}

/** Raw pixels to RGB, alpha over white (the same rounding as sharp's flatten is not needed: nothing else decodes these). */
async function fromRaw(picture: RawPicture, limit: Limit, signal: AbortSignal | undefined): Promise<DecodedPicture> {
  const { data, width, height, channels } = picture;
  const wrong = (expected: string, found: unknown) =>
    new MiniGptError('ERR_ARGUMENT', `raw pixels: expected ${expected}, found ${String(found)}`);
  for (const [key, size] of [
    ['width', width],
    ['height', height],
  ] as const) {
    if (!Number.isSafeInteger(size) || size < 1) throw wrong(`a whole ${key} of 1 or more`, size);
  }
  if (![1, 2, 3, 4].includes(channels)) throw wrong('1, 2, 3 or 4 channels', channels);
  if (!(data instanceof Uint8Array || data instanceof Uint8ClampedArray))
    throw wrong('data of type Uint8Array', typeof data);
  checkSize('the raw picture', width, height, limit);
  const pixels = width * height;
  if (data.length !== pixels * channels) {
    throw wrong(
      `${pixels * channels} bytes for ${width} x ${height} with ${channels} channels`,
      `${data.length} bytes`,
    );
  }
  const rgb = new Uint8Array(pixels * 3);
  const colours = channels < 3 ? 1 : 3;
  const hasAlpha = channels === 2 || channels === 4;
  for (let from = 0; from < pixels; from += slicePixels) {
    if (from > 0) await nextTurn(); // others' turn
    if (signal?.aborted) throw abortedError(signal);
    const end = Math.min(pixels, from + slicePixels);
    if (channels === 3) {
      rgb.set(data.subarray(from * 3, end * 3), from * 3);
      continue;
    }
    for (let p = from; p < end; p++) {
      const alpha = hasAlpha ? data[p * channels + colours]! : 255;
      for (let c = 0; c < 3; c++) {
        const value = data[p * channels + (colours === 1 ? 0 : c)]!;
        rgb[p * 3 + c] = alpha === 255 ? value : Math.round((value * alpha + 255 * (255 - alpha)) / 255);
      }
    }
  }
  return { data: rgb, width, height };
}

/** What a sharp pipeline gives, with the orientation that it has not applied. */
async function fromPipeline(pipeline: Sharp, name: string): Promise<Uint8Array> {
  try {
    return await pipeline.clone().keepExif().png({ compressionLevel: 0 }).toBuffer();
  } catch (error) {
    throw imageError(name, error);
  }
}

/** A path or bytes for sharp to open. */
async function toSource(
  picture: unknown,
  maxBytes: number,
  signal: AbortSignal | undefined,
): Promise<string | Uint8Array> {
  if (picture instanceof URL) return fromText(picture.href, maxBytes, signal);
  if (typeof picture === 'string') return fromText(picture, maxBytes, signal);
  if (picture instanceof Uint8Array) return picture;
  if (ArrayBuffer.isView(picture)) return new Uint8Array(picture.buffer, picture.byteOffset, picture.byteLength);
  if (picture instanceof ArrayBuffer || picture instanceof SharedArrayBuffer) return new Uint8Array(picture);
  if (picture instanceof Blob) return new Uint8Array(await picture.arrayBuffer());
  if (picture instanceof ReadableStream) return collect(Readable.fromWeb(picture), maxBytes, signal);
  if (typeof picture === 'object' && picture !== null && Symbol.asyncIterator in picture) {
    return collect(picture as AsyncIterable<Uint8Array>, maxBytes, signal);
  }
  const found =
    picture === null
      ? 'null'
      : typeof picture === 'object'
        ? `an object of ${picture.constructor?.name ?? 'no class'}`
        : typeof picture;
  throw new MiniGptError(
    'ERR_ARGUMENT',
    `expected a picture (path, file: URL, data: URI, Uint8Array, ArrayBuffer, Blob, stream, sharp pipeline, or { data, width, height, channels }), found ${found}`,
  );
}

async function fromText(text: string, maxBytes: number, signal: AbortSignal | undefined): Promise<string | Uint8Array> {
  if (/^data:/i.test(text)) return fromDataUri(text);
  if (/^[a-z][a-z0-9+.-]+:\/\//i.test(text) && !/^file:/i.test(text)) {
    throw new MiniGptError(
      'ERR_UNSUPPORTED',
      `${pictureName(text)} is not fetched: expected a file or its bytes, found a URL; ` +
        'fetch it yourself and pass what (await fetch(url)).blob() gives',
    );
  }
  let path = text;
  if (/^file:/i.test(text)) {
    try {
      path = fileURLToPath(text);
    } catch (error) {
      throw new MiniGptError(
        'ERR_ARGUMENT',
        `${text.slice(0, 200)} is no usable file: URL: ${(error as Error).message}`,
        { cause: error },
      );
    }
  }
  if (path === '') throw new MiniGptError('ERR_ARGUMENT', 'expected the path of a picture, found an empty string');
  if (path.includes('\0'))
    throw new MiniGptError('ERR_ARGUMENT', 'expected the path of a picture, found one with a zero byte');
  let file;
  try {
    file = await stat(path);
  } catch (error) {
    const failure = toMiniGptError(error);
    const words =
      failure.code === 'ERR_FILE_NOT_FOUND'
        ? `there is no picture at ${path}`
        : `${path} cannot be read: ${failure.message}`;
    throw new MiniGptError(failure.code, words, { cause: error });
  }
  if (file.isDirectory()) throw new MiniGptError('ERR_IMAGE', `${path}: expected a picture, found a directory`);
  if (!file.isFile()) return collect(createReadStream(path), maxBytes, signal); // a pipe, /dev/stdin
  if (file.size === 0) throw new MiniGptError('ERR_IMAGE', `the picture ${path} is empty (0 bytes)`);
  return path;
}

function fromDataUri(uri: string): Uint8Array {
  const comma = uri.indexOf(',');
  if (comma < 0)
    throw new MiniGptError('ERR_IMAGE', 'the data: URI has no comma: expected data:[type][;base64],contents');
  const body = uri.slice(comma + 1);
  if (/;\s*base64\s*$/i.test(uri.slice(0, comma))) {
    let text = body;
    try {
      text = decodeURIComponent(body);
    } catch {
      /* a stray % is no base64 either and is reported below */
    }
    text = text.replace(/\s/g, '');
    const bad = /[^A-Za-z0-9+/=_-]/.exec(text);
    if (bad)
      throw new MiniGptError(
        'ERR_IMAGE',
        `the data: URI is not base64: found ${JSON.stringify(bad[0])} at character ${bad.index}`,
      );
    return Buffer.from(text, 'base64');
  }
  // percent-encoded, byte by byte: decodeURIComponent would insist on UTF-8
  const bytes = Buffer.from(body, 'utf8')
    .toString('latin1')
    .replace(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(parseInt(hex, 16)));
  return Buffer.from(bytes, 'latin1');
}

async function collect(
  stream: AsyncIterable<Uint8Array | string>,
  maxBytes: number,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  const destroy = () => (stream as Partial<Readable>).destroy?.(abortedError(signal));
  signal?.addEventListener('abort', destroy, { once: true });
  try {
    for await (const chunk of stream) {
      if (!(chunk instanceof Uint8Array)) {
        throw new MiniGptError(
          'ERR_ARGUMENT',
          `the picture's stream: expected chunks of bytes, found ${typeof chunk} (has it an encoding set?)`,
        );
      }
      bytes += chunk.byteLength;
      if (bytes > maxBytes)
        throw new MiniGptError('ERR_IMAGE', `the picture's stream: expected at most ${maxBytes} bytes, found more`);
      chunks.push(chunk);
    }
  } catch (error) {
    if (signal?.aborted) throw abortedError(signal);
    if (error instanceof MiniGptError) throw error;
    throw new MiniGptError(
      'ERR_FILE_READ',
      `the picture's stream failed: ${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    );
  } finally {
    signal?.removeEventListener('abort', destroy);
  }
  return Buffer.concat(chunks);
}
