// What the watch page's server answers: the page and its parts, the run's news as server-sent events, the run's pictures.
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { Hono } from 'hono';
import { secureHeaders } from 'hono/secure-headers';
import { streamSSE } from 'hono/streaming';
import { toMiniGptError } from '../../errors.js';
import { Follower } from './follow.js';
import { nothingSeen } from './history.js';
import { Pictures } from './pictures.js';

/** Milliseconds between two looks at the log. */
const LOOK = 500;
/** Looks without news after which a comment shows the page and what lies between that the connection lives. */
const LOOKS_BEFORE_COMMENT = 30;

const page = (name: string) => fileURLToPath(new URL(`page/${name}`, import.meta.url));
const uplot = (name: string) => createRequire(import.meta.url).resolve(`uplot/dist/${name}`);

const parts = (type: string, names: string[]): Record<string, Served> =>
  Object.fromEntries(names.map((name) => [`/${name}`, { path: () => page(name), type }]));

interface Served {
  path: () => string;
  type: string;
}

/** The only files that are served, by their address. */
const files: Record<string, Served> = {
  '/': { path: () => page('index.html'), type: 'text/html' },
  '/icon.svg': { path: () => page('icon.svg'), type: 'image/svg+xml' },
  '/uplot.js': { path: () => uplot('uPlot.esm.js'), type: 'text/javascript' },
  '/uplot.css': { path: () => uplot('uPlot.min.css'), type: 'text/css' },
  ...parts('text/css', ['style.css', 'curves.css', 'answers.css']),
  ...parts('text/javascript', ['main.js', 'charts.js', 'summary.js', 'answers.js', 'format.js']),
};

/**
 * `hosts`: names by which a browser may ask, so that no foreign page reaches this server through a name of its own that leads here; undefined:
 * any. `closing` ends the streams.
 */
export function routes(folder: string, hosts: ReadonlySet<string> | undefined, closing: AbortSignal): Hono {
  const app = new Hono();
  const follower = new Follower(folder);
  const pictures = new Pictures(folder);

  app.use(async (c, next) => {
    const host = new URL(c.req.url).hostname;
    if (hosts && !hosts.has(host))
      return c.text(
        `This page is served to ${[...hosts].join(', ')} alone, not to ${host}; another host must be named when it starts.`,
        403,
      );
    return next();
  });
  app.use(
    secureHeaders({
      contentSecurityPolicy: {
        defaultSrc: ["'self'"],
        baseUri: ["'none'"],
        frameAncestors: ["'none'"],
        objectSrc: ["'none'"],
      },
      strictTransportSecurity: false,
      referrerPolicy: 'no-referrer',
    }),
  );
  app.use(async (c, next) => {
    await next();
    c.header('Cache-Control', 'no-cache');
  });

  for (const [address, { path, type }] of Object.entries(files)) {
    app.get(address, async (c) => c.body(await readFile(path()), 200, { 'Content-Type': `${type}; charset=utf-8` }));
  }

  app.get('/pictures/:place{[0-9]+}', async (c) => {
    await follower.refresh();
    const picture = follower.history.pictures[Number(c.req.param('place'))];
    if (picture === undefined) return c.text('The run has no picture of this number.', 404);
    try {
      return c.body(new Uint8Array(await pictures.get(picture)), 200, { 'Content-Type': 'image/webp' });
    } catch (error) {
      return c.text(`The picture cannot be shown: ${toMiniGptError(error).message}`, 404);
    }
  });

  app.get('/events', (c) =>
    streamSSE(c, async (stream) => {
      const seen = nothingSeen();
      const ended = new AbortController();
      stream.onAbort(() => ended.abort());
      const end = AbortSignal.any([closing, ended.signal]);
      for (let quiet = 0; !end.aborted;) {
        let news;
        try {
          await follower.refresh();
          news = follower.history.news(seen);
        } catch (error) {
          await stream.writeSSE({ event: 'trouble', data: JSON.stringify(toMiniGptError(error).message) });
        }
        if (news) await stream.writeSSE({ event: 'news', data: JSON.stringify(news) });
        else if (++quiet % LOOKS_BEFORE_COMMENT === 0) await stream.write(': still here\n\n');
        await pause(LOOK, end);
      }
    }),
  );

  app.notFound((c) => c.text('There is nothing at this address.', 404));
  app.onError((error, c) => c.text(toMiniGptError(error).message, 500));
  return app;
}

/** Resolves after so many milliseconds, or as soon as `end` is aborted. */
function pause(milliseconds: number, end: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const wake = () => {
      clearTimeout(timer);
      end.removeEventListener('abort', wake);
      resolve();
    };
    const timer = setTimeout(wake, milliseconds);
    end.addEventListener('abort', wake);
    if (end.aborted) wake();
  });
}
