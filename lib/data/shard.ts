// One shard of a WebDataset: which pairs its members make, and reading one of them.
import { MiniGptError } from '../errors.js';
import { InputFile } from '../formats/input-file.js';
import { applyRules } from './captions.js';
import type { Turn } from './pair.js';
import { maxPictureBytes, isUnusable } from './source.js';
import { readTarIndex, type TarMember } from './tar.js';

/** The members of one key: `000012.jpg` and `000012.json` make a pair `000012`. */
export interface ShardEntry {
  key: string;
  picture?: TarMember;
  caption?: TarMember & { json: boolean };
  /** Why it can't be used, where its members tell already. */
  problem?: string;
}

/** The file that an index was made of. */
export interface ShardFile {
  path: string;
  bytes: number;
}

export interface Shard extends ShardFile {
  /** In the order of their first members. */
  entries: ShardEntry[];
  /** What is wrong with the shard as a whole: no tar, cut off, empty. */
  problem?: string;
}

/** In the order of preference, where a key has several. */
const pictureKinds = ['jpg', 'jpeg', 'png', 'webp'];
const captionKinds = ['json', 'txt'];
const maxCaptionBytes = 16 * 2 ** 20;
/** A caption that lies so near to its picture is read together with it. */
const nearBytes = 16 * 1024;

/**
 * Reads the shard's headers. A damaged or missing shard is one with a problem, and with the entries before the damage.
 *
 * Errors: the system's own (no memory, too many open files).
 */
export async function openShard(path: string): Promise<Shard> {
  let index;
  try {
    index = await readTarIndex(path);
  } catch (error) {
    if (!isUnusable(error)) throw error;
    return { path, bytes: 0, entries: [], problem: withoutPath((error as Error).message, path) };
  }
  const entries = group(index.members);
  const shard: Shard = { path, bytes: index.bytes, entries };
  if (index.problem !== undefined) {
    const pairs = entries.filter((entry) => entry.problem === undefined).length;
    shard.problem = `${index.problem}; the ${pairs} pairs before it are used`;
    if (pairs === 0) shard.problem = index.problem;
  } else if (entries.length === 0) {
    shard.problem = `has no pair: expected KEY.jpg (jpeg, png, webp) and KEY.json (txt), found ${index.members.length} members`;
  }
  return shard;
}

function withoutPath(message: string, path: string): string {
  return message.startsWith(path) ? message.slice(path.length).replace(/^[: ]+/, '') : message;
}

/** By key: the name up to the first dot of its last part, as WebDataset has it. */
function group(members: TarMember[]): ShardEntry[] {
  const keys = new Map<string, Map<string, TarMember>>();
  const twice = new Map<string, string>();
  for (const member of members) {
    const parts = /^(?:\.\/)?((?:.*\/)?[^./][^./]*)\.([^/]+)$/s.exec(member.name);
    if (!parts) continue;
    const [key, kind] = [parts[1]!, parts[2]!.toLowerCase()];
    if (!pictureKinds.includes(kind) && !captionKinds.includes(kind)) continue;
    const found = keys.get(key) ?? new Map<string, TarMember>();
    if (found.has(kind)) twice.set(key, kind);
    keys.set(key, found.set(kind, member));
  }
  return Array.from(keys, ([key, found]) => {
    const entry: ShardEntry = { key };
    const kindOf = (kinds: string[]) => kinds.find((kind) => found.has(kind));
    const [picture, caption] = [kindOf(pictureKinds), kindOf(captionKinds)];
    if (picture !== undefined) entry.picture = found.get(picture)!;
    if (caption !== undefined) entry.caption = { ...found.get(caption)!, json: caption === 'json' };
    const problem = wrongWith(entry, twice.get(key));
    if (problem !== undefined) entry.problem = problem;
    return entry;
  });
}

function wrongWith({ picture, caption }: ShardEntry, twice: string | undefined): string | undefined {
  if (twice !== undefined) return `has two members .${twice}`;
  if (!picture) return `has no picture (${pictureKinds.join(', ')})`;
  if (!caption) return `has no caption (${captionKinds.join(', ')})`;
  if (picture.size === 0) return 'its picture is empty (0 bytes)';
  if (picture.size > maxPictureBytes)
    return `its picture has ${picture.size} bytes; expected at most ${maxPictureBytes}`;
  if (caption.size > maxCaptionBytes)
    return `its caption has ${caption.size} bytes; expected at most ${maxCaptionBytes}`;
  return undefined;
}

/**
 * The pair's picture, undecoded, and its caption by the rules.
 *
 * Errors: ERR_FILE_FORMAT (the entry's problem, no caption in the JSON), ERR_FILE_CHANGED (the shard is another than was indexed), reading's.
 */
export async function readShardEntry(
  shard: ShardFile,
  entry: ShardEntry,
  rules: { maxWords: number; prompt: string } | undefined,
): Promise<{ picture: Uint8Array; turns: Turn[] }> {
  const { picture, caption, problem } = entry;
  if (problem !== undefined || !picture || !caption)
    throw new MiniGptError('ERR_FILE_FORMAT', problem ?? 'has no picture');
  const file = await InputFile.open(shard.path);
  try {
    if (file.size !== shard.bytes) {
      throw new MiniGptError(
        'ERR_FILE_CHANGED',
        `${shard.path} has ${file.size} bytes, it had ${shard.bytes} when its index was read`,
      );
    }
    const [bytes, text] = await readBoth(file, picture, caption);
    return {
      picture: bytes,
      turns: [
        { answer: applyRules(caption.json ? captionOf(text) : text.toString('utf8').replace(/[\r\n]+$/, ''), rules) },
      ],
    };
  } finally {
    await file.close();
  }
}

async function readBoth(file: InputFile, picture: TarMember, caption: TarMember): Promise<[Buffer, Buffer]> {
  const start = Math.min(picture.offset, caption.offset);
  const end = Math.max(picture.offset + picture.size, caption.offset + caption.size);
  if (end - start > picture.size + caption.size + nearBytes)
    return [await file.read(picture.offset, picture.size), await file.read(caption.offset, caption.size)];
  const both = await file.read(start, end - start);
  const part = ({ offset, size }: TarMember) => both.subarray(offset - start, offset - start + size);
  return [part(picture), part(caption)];
}

function captionOf(text: Buffer): string {
  let value: unknown;
  try {
    value = JSON.parse(text.toString('utf8'));
  } catch (error) {
    throw new MiniGptError('ERR_FILE_FORMAT', `its JSON cannot be read: ${(error as Error).message}`, { cause: error });
  }
  const caption: unknown =
    typeof value === 'object' && value !== null && 'caption' in value ? value.caption : undefined;
  if (typeof caption !== 'string') {
    const found =
      value === null
        ? 'null'
        : Array.isArray(value)
          ? 'a list'
          : typeof value === 'object'
            ? `the keys ${Object.keys(value).slice(0, 8).join(', ')}`
            : typeof value;
    throw new MiniGptError('ERR_FILE_FORMAT', `its JSON has no text "caption": found ${found}`);
  }
  return caption;
}
