// Serves a page that shows a training run: its curves, live, and what it says of its fixed pictures.
import { stat } from 'node:fs/promises';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { resolve } from 'node:path';
import { z } from 'zod';
import { MiniGptError, toMiniGptError } from '../../errors.js';
import { checkOptions, show } from '../../options.js';

/** The port that is tried first when none is named. */
export const WATCH_PORT = 6060;

export interface WatchOptions {
  /** 0: any that is free. Default: 6060, or any that is free if that is taken. */
  port?: number;
  /** The address to listen on. Default: 127.0.0.1, which only this machine reaches. */
  host?: string;
}

export interface Watch {
  /** Where the page is. */
  url: string;
  /** Ends the server and its connections. */
  close(): Promise<void>;
}

const rules = z.object({
  port: z
    .number()
    .int()
    .min(0)
    .max(65535)
    .meta({ expected: 'a whole number from 0 (any free port) to 65535', known: [] }),
  host: z.string().min(1).meta({ expected: 'a name or an address of this machine', known: [] }),
});

/**
 * Watches a run's folder, also of a run that has ended or has not written anything yet. Nothing is protected by a password: whoever reaches
 * the host can read.
 * Errors: ERR_FILE_NOT_FOUND (no such folder), ERR_ARGUMENT (an option; a port that is taken, a host that is not of this machine).
 */
export async function watch(folder: string, options?: WatchOptions): Promise<Watch> {
  const { port, host = '127.0.0.1' } = checkOptions<WatchOptions>(rules, options, 'watch()');
  const path = resolve(folder);
  const found = await stat(path).catch((error: unknown) => {
    throw new MiniGptError('ERR_FILE_NOT_FOUND', `${folder}: expected the folder of a run, found none`, {
      cause: error,
    });
  });
  if (!found.isDirectory())
    throw new MiniGptError('ERR_FILE_NOT_FOUND', `${folder}: expected the folder of a run, found a file`);

  const closing = new AbortController();
  const local = /^(localhost|127(\.\d+){3}|::1)$/.test(host);
  const hosts = local
    ? new Set(['localhost', '127.0.0.1', '[::1]', host.includes(':') ? `[${host}]` : host])
    : undefined;
  const [{ createAdaptorServer }, { routes }] = await Promise.all([import('@hono/node-server'), import('./routes.js')]);
  const server = createAdaptorServer({ fetch: routes(path, hosts, closing.signal).fetch }) as Server;
  try {
    await listen(server, port ?? WATCH_PORT, host);
  } catch (error) {
    if (port !== undefined || (error as NodeJS.ErrnoException).code !== 'EADDRINUSE')
      throw listenError(error, port ?? WATCH_PORT, host);
    await listen(server, 0, host).catch((second: unknown) => {
      throw listenError(second, 0, host);
    });
  }
  const { port: bound } = server.address() as AddressInfo;
  const name = ['0.0.0.0', '::'].includes(host) ? 'localhost' : host.includes(':') ? `[${host}]` : host;
  return {
    url: `http://${name}:${bound}/`,
    close: () =>
      new Promise((done) => {
        closing.abort();
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
}

function listen(server: Server, port: number, host: string): Promise<void> {
  return new Promise((done, fail) => {
    server.once('error', fail);
    server.listen(port, host, () => {
      server.off('error', fail);
      done();
    });
  });
}

function listenError(error: unknown, port: number, host: string): MiniGptError {
  const { code } = error as NodeJS.ErrnoException;
  const sentences: Record<string, string> = {
    EADDRINUSE: `port ${port} of ${host} is taken by another program; expected a free one (0: any)`,
    EACCES: `port ${port} of ${host} is not open to this user; expected one above 1023 (0: any)`,
    EADDRNOTAVAIL: `expected an address of this machine as host, found ${show(host)}`,
    ENOTFOUND: `expected an address of this machine as host, found ${show(host)}`,
  };
  const sentence = code === undefined ? undefined : sentences[code];
  return sentence ? new MiniGptError('ERR_ARGUMENT', `watch(): ${sentence}`, { cause: error }) : toMiniGptError(error);
}
