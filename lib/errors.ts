// The one error class of the package: every failure has a code and a sentence that names what was expected and found.

const errorCodes = [
  'ERR_FILE_NOT_FOUND',
  'ERR_FILE_READ',
  'ERR_FILE_FORMAT',
  'ERR_FILE_CHANGED',
  'ERR_MISSING_TENSOR',
  'ERR_SHAPE',
  'ERR_UNSUPPORTED',
  'ERR_ARGUMENT',
  'ERR_IMAGE',
  'ERR_CONTEXT_FULL',
  'ERR_OUT_OF_MEMORY',
  'ERR_NO_BACKEND',
  'ERR_CUDA',
  'ERR_ABORTED',
  'ERR_CLOSED',
  'ERR_NAN_LOSS',
  'ERR_COLLECTIVE',
  'ERR_NETWORK',
  'ERR_INTERNAL',
] as const;

/** Codes of `MiniGptError`; the native code uses the same (native/core/error.h). */
export type ErrorCode = (typeof errorCodes)[number];

/** What every failure of this package is thrown or rejected as. */
export class MiniGptError extends Error {
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'MiniGptError';
    this.code = code;
  }
}

/** What the system's own codes mean here; every other system error is ERR_FILE_READ. */
const systemCodes: Record<string, ErrorCode> = {
  ENOENT: 'ERR_FILE_NOT_FOUND',
  ENOTDIR: 'ERR_FILE_NOT_FOUND',
  ENOMEM: 'ERR_OUT_OF_MEMORY',
  ERR_MEMORY_ALLOCATION_FAILED: 'ERR_OUT_OF_MEMORY',
  ABORT_ERR: 'ERR_ABORTED',
};

/**
 * Any thrown value as a MiniGptError: one of ours as it is; a native error (an Error with one of our codes) and a system
 * error with their code; a TypeError or RangeError of the native layer as ERR_ARGUMENT; all else as ERR_INTERNAL. The
 * original is the `cause`.
 */
export function toMiniGptError(error: unknown): MiniGptError {
  if (error instanceof MiniGptError) return error;
  if (!(error instanceof Error))
    return new MiniGptError('ERR_INTERNAL', `something that is no Error was thrown: ${String(error)}`);
  const found = 'code' in error ? String(error.code) : '';
  const code = (errorCodes as readonly string[]).includes(found)
    ? (found as ErrorCode)
    : found in systemCodes
      ? systemCodes[found]!
      : 'syscall' in error
        ? 'ERR_FILE_READ'
        : error instanceof TypeError || error instanceof RangeError
          ? 'ERR_ARGUMENT'
          : 'ERR_INTERNAL';
  return new MiniGptError(code, error.message || `an error without a message (${error.name})`, { cause: error });
}

/** The error of an AbortSignal, whatever its reason was. */
export function abortedError(signal?: AbortSignal): MiniGptError {
  const timeout = signal?.reason instanceof Error && signal.reason.name === 'TimeoutError';
  return new MiniGptError(
    'ERR_ABORTED',
    timeout ? 'the time limit of the signal ended this' : 'aborted by the caller',
    signal?.reason === undefined ? undefined : { cause: signal.reason },
  );
}
