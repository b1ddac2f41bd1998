// Opens a data set of any format.
import { MiniGptError } from '../errors.js';
import { show } from '../options.js';
import { readCcSbuAlign } from './cc-sbu-align.js';
import { readList } from './list.js';
import { ListedSource } from './listed.js';
import { readLlava } from './llava.js';
import type { DatasetConfig } from './options.js';
import type { DataSource } from './source.js';
import { WebDataset } from './webdataset.js';

/** Errors: ERR_FILE_NOT_FOUND (no such storage, with the data set's name), ERR_FILE_READ, ERR_FILE_FORMAT, ERR_ARGUMENT. */
export async function openSource(config: DatasetConfig): Promise<DataSource> {
  try {
    switch (config.format) {
      case 'webdataset':
        return await WebDataset.open(config);
      case 'cc_sbu_align':
        return new ListedSource(config, await readCcSbuAlign(config));
      case 'llava':
        return new ListedSource(config, await readLlava(config));
      case 'list':
        return new ListedSource(config, await readList(config));
    }
  } catch (error) {
    if (!(error instanceof MiniGptError) || error.message.includes(`data set ${config.name}`)) throw error;
    throw new MiniGptError(error.code, `the data set ${config.name}: ${error.message}`, { cause: error });
  }
  const known = 'webdataset, cc_sbu_align, llava or list';
  throw new MiniGptError(
    'ERR_ARGUMENT',
    `the data set ${config.name}: expected the format ${known}, found ${show(config.format)}`,
  );
}
