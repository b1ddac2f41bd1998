// Opens a file of weights by what it contains, not by its name, and says what it is where it holds none.
import { stat } from 'node:fs/promises';
import { MiniGptError } from '../errors.js';
import { isModelFolder, openModelFolder } from './hugging-face.js';
import { InputFile, systemError } from './input-file.js';
import { openPth } from './pth.js';
import { openSafetensors } from './safetensors.js';
import type { Checkpoint } from './tensor.js';

export type FileKind = 'pth' | 'safetensors' | 'gguf' | 'folder';

/** What lies at `path`. Errors: those of InputFile.open, ERR_FILE_FORMAT (none of the kinds, with what it looks like). */
export async function kindOf(path: string): Promise<FileKind> {
  try {
    if ((await stat(path)).isDirectory()) {
      if (await isModelFolder(path)) return 'folder';
      throw new MiniGptError(
        'ERR_FILE_NOT_FOUND',
        `${path} is a directory without model weights (*.safetensors, pytorch_model*.bin)`,
      );
    }
  } catch (error) {
    throw systemError(path, error);
  }
  const file = await InputFile.open(path);
  try {
    const head = await file.read(0, Math.min(file.size, 512));
    const text = head.toString('latin1');
    if (text.startsWith('GGUF')) return 'gguf';
    // The last two are what openPth explains: PyTorch's older format, and a tar archive.
    if (text.startsWith('PK\x03\x04') || text.startsWith('\x80\x02\x8a\x0a') || text.slice(257, 262) === 'ustar')
      return 'pth';
    if (/^.{7}\x00\s*\{/s.test(text)) return 'safetensors';
    throw new MiniGptError(
      'ERR_FILE_FORMAT',
      `${path} is ${resemblance(head, text)}; expected a PyTorch checkpoint, safetensors or GGUF`,
    );
  } finally {
    await file.close();
  }
}

/** Opens a `.pth`, `.bin` or `.safetensors` file, or a Hugging Face folder. Errors: those of kindOf and of the readers. */
export async function openCheckpoint(path: string): Promise<Checkpoint> {
  switch (await kindOf(path)) {
    case 'pth':
      return openPth(path);
    case 'safetensors':
      return openSafetensors(path);
    case 'folder':
      return openModelFolder(path);
    case 'gguf':
      throw new MiniGptError('ERR_FILE_FORMAT', `${path} is a GGUF file; expected a PyTorch checkpoint or safetensors`);
  }
}

function resemblance(head: Buffer, text: string): string {
  if (text.startsWith('version https://git-lfs')) return 'a Git LFS pointer (the file itself was not downloaded)';
  if (/^\s*<(!doctype|html)/i.test(text)) return 'a web page (a download that went wrong?)';
  if (text.startsWith('\x1f\x8b')) return 'a gzip archive (unpack it first)';
  if (text.startsWith('tjgg') || text.startsWith('lmgg') || text.startsWith('fmgg'))
    return 'a ggml file from before GGUF';
  if (head.every((byte) => byte === 0)) return 'nothing but zeros at its beginning (a download that was cut off?)';
  if (head.every((byte) => (byte >= 32 && byte < 127) || (byte >= 9 && byte <= 13))) return 'a text file';
  return `a file that begins with the bytes ${head.toString('hex', 0, 8)}`;
}
