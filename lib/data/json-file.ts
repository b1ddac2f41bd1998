// A JSON file read whole, with errors that name it.
import { MiniGptError } from '../errors.js';
import { InputFile } from '../formats/input-file.js';

/** What a JavaScript string can hold at most. */
const maxBytes = 2 ** 29 - 24;

/** Errors: ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_FILE_FORMAT (empty, too large, no JSON). */
export async function readJson(path: string): Promise<unknown> {
  const file = await InputFile.open(path);
  let text;
  try {
    if (file.size > maxBytes)
      throw new MiniGptError(
        'ERR_FILE_FORMAT',
        `${path} has ${file.size} bytes; expected a JSON file of at most ${maxBytes}`,
      );
    text = (await file.read(0, file.size)).toString('utf8');
  } finally {
    await file.close();
  }
  try {
    return JSON.parse(text.replace(/^\ufeff/, '')) as unknown;
  } catch (error) {
    throw new MiniGptError('ERR_FILE_FORMAT', `${path} is no JSON: ${(error as Error).message}`, { cause: error });
  }
}
