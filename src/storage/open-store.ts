import type { BridgeConfig } from '../config/bridge-config.js';
import { InferenceError } from '../errors.js';
import type { AssetStore } from './asset-store.js';
import { LocalStore } from './local-store.js';
import { S3Store } from './s3-store.js';
import { SupabaseStore } from './supabase-store.js';

/** Opens the storage that the configuration names. @throws InferenceError INVALID_REQUEST if a variable for it is missing */
export async function openStore(config: BridgeConfig): Promise<AssetStore> {
  const { STORAGE_BASE_URL: baseUrl, STORAGE_TIMEOUT_MS: timeoutMs } = config;
  switch (storageOf(config)) {
    case 'supabase':
      return new SupabaseStore({
        url: required(config, 'SUPABASE_URL'),
        serviceKey: required(config, 'SUPABASE_SERVICE_KEY'),
        signedUrlSeconds: config.SUPABASE_SIGNED_URL_S,
        timeoutMs,
      });
    case 's3':
      return S3Store.create({
        bucket: required(config, 'S3_BUCKET'),
        region: config.S3_REGION,
        endpoint: config.S3_ENDPOINT,
        baseUrl,
        timeoutMs,
      });
    case 'local':
      return new LocalStore({ folder: config.STORAGE_FOLDER, baseUrl });
  }
}

function storageOf(config: BridgeConfig): AssetStore['kind'] {
  if (config.STORAGE !== 'auto') return config.STORAGE;
  if (config.SUPABASE_URL !== undefined && config.SUPABASE_SERVICE_KEY !== undefined) return 'supabase';
  return config.S3_BUCKET === undefined ? 'local' : 's3';
}

function required(config: BridgeConfig, name: 'SUPABASE_URL' | 'SUPABASE_SERVICE_KEY' | 'S3_BUCKET'): string {
  const value = config[name];
  if (value !== undefined) return value;
  throw new InferenceError('INVALID_REQUEST', `${name} must be set for STORAGE=${config.STORAGE}`);
}
