// Calls every method of the data provider, for the tenant that is named, and prints their results as JSON.
import { by, page, provider, refused } from './provider.mjs';

const results = {};
results.list = await provider.getList('orders', {
    pagination: page(2, 5), sort: by('title', 'DESC'), filter: { status: 'open' },
});
results.empty = await provider.getList('orders', {
    pagination: page(9, 5), sort: by('id', 'ASC'), filter: {},
});
results.searched = await provider.getList('orders', {
    pagination: page(1, 5), sort: by('id', 'ASC'), filter: { q: 'order 07', customer: { name: `customer 1` } },
});
const customers = (await provider.getList('customers', {
    pagination: page(1, 10), sort: by('name', 'ASC'), filter: {},
})).data;
results.customers = customers;
const orders = (await provider.getList('orders', {
    pagination: page(1, 100), sort: by('id', 'ASC'), filter: {},
})).data;
const ids = orders.map(({ id }) => id);
results.one = await provider.getOne('orders', { id: ids[3] });
results.many = await provider.getMany('orders', { ids: [ids[1], ids[4], ids[2]] });
results.manyCustomers = await provider.getMany('customers', { ids: customers.map(({ id }) => id) });
results.none = await provider.getMany('orders', { ids: [] });
results.reference = await provider.getManyReference('orders', {
    target: 'customer_id', id: customers[0].id,
    pagination: page(1, 3), sort: by('title', 'ASC'), filter: { status: ['open', 'paid'] },
});
results.created = await provider.create('orders', {
    data: { title: 'new, "quoted"', status: 'open', customer_id: customers[1].id, amount: '12.50' },
});
// A form sends back the whole row, with the fields that nobody can change.
results.updated = await provider.update('orders', {
    id: results.created.data.id,
    data: { ...results.created.data, title: 'changed', amount: null },
    previousData: results.created.data,
});
results.updatedMany = await provider.updateMany('orders', { ids: [ids[0], ids[1]], data: { status: 'paid' } });
results.afterUpdates = await provider.getMany('orders', { ids: [ids[0], ids[1]] });
results.deleted = await provider.delete('orders', {
    id: results.created.data.id, previousData: results.created.data,
});
results.deletedMany = await provider.deleteMany('orders', { ids: [ids[2], ids[3]] });
results.afterDeletes = await provider.getList('orders', {
    pagination: page(1, 1), sort: by('id', 'ASC'), filter: {},
});
results.missing = await refused(provider.getOne('orders', { id: ids[2] }));
results.badFilter = await refused(provider.getList('orders', {
    pagination: page(1, 5), sort: by('id', 'ASC'), filter: { staus: 'open' },
}));
results.badSort = await refused(provider.getList('orders', {
    pagination: page(1, 5), sort: by('tenant_id', 'ASC'), filter: {},
}));
results.tooMany = await refused(provider.getList('orders', {
    pagination: page(1, 1000), sort: by('id', 'ASC'), filter: {},
}));
results.badData = await refused(provider.update('orders', { id: ids[0], data: { titel: 'x' }, previousData: {} }));
results.ids = ids;
console.log(JSON.stringify(results));
