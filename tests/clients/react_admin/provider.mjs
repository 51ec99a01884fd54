// The data provider of the tenant that is named, and what its callers need.
import simpleRestProvider from 'ra-data-simple-rest';
import { fetchUtils } from 'ra-core';

const [address, tenant] = process.argv.slice(2);

const httpClient = (url, options = {}) => {
    const headers = new Headers(options.headers ?? { Accept: 'application/json' });
    headers.set('X-Tenant-ID', tenant);
    headers.set('X-User', 'ann');
    return fetchUtils.fetchJson(url, { ...options, headers });
};
export const provider = simpleRestProvider(address, httpClient);

export const page = (number, perPage) => ({ page: number, perPage });
export const by = (field, order) => ({ field, order });
export const refused = call => call.then(
    () => { throw new Error('not refused'); },
    error => ({ status: error.status, code: error.body.code, errors: error.body.errors }),
);
