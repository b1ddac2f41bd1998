// Whether training with several processes can be tried on this machine.
import { addon } from '../lib/addon.js';
import { MiniGptError } from '../lib/errors.js';

/** Why sums cannot be tried here, or undefined. */
export function missingGloo(): string | undefined {
  try {
    addon.openCollective({ rank: 0, size: 2, host: '127.0.0.1' }).close();
    return undefined;
  } catch (error) {
    if (error instanceof MiniGptError && error.code === 'ERR_NO_BACKEND') return error.message;
    throw error;
  }
}
