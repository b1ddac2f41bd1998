// The one error class of the package: every failure has a code and a sentence that names what was expected and found.

/** Codes of `MiniGptError`; the native code uses the same (native/core/error.h). */
export type ErrorCode =
  | 'ERR_FILE_NOT_FOUND' | 'ERR_FILE_READ' | 'ERR_FILE_FORMAT' | 'ERR_FILE_CHANGED' | 'ERR_MISSING_TENSOR' | 'ERR_SHAPE'
  | 'ERR_UNSUPPORTED' | 'ERR_ARGUMENT' | 'ERR_IMAGE' | 'ERR_CONTEXT_FULL' | 'ERR_OUT_OF_MEMORY' | 'ERR_NO_BACKEND'
  | 'ERR_ABORTED' | 'ERR_CLOSED' | 'ERR_INTERNAL';

/** What every failure of this package is thrown or rejected as. */
export class MiniGptError extends Error {
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'MiniGptError';
    this.code = code;
  }
}
