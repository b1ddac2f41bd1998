// What uvu's assert lacks: a promise that must reject.
import * as assert from 'uvu/assert';
import { MiniGptError, type ErrorCode } from '../lib/errors.js';

/** The error that `promise` rejects with, which must be a MiniGptError of this code. */
export async function rejects(code: ErrorCode, promise: PromiseLike<unknown>): Promise<MiniGptError> {
  try {
    await promise;
  } catch (error) {
    assert.instance(error, MiniGptError);
    assert.is((error as MiniGptError).code, code, (error as Error).message);
    return error as MiniGptError;
  }
  throw new Error(`expected ${code}, found an answer`);
}
