// Calls every method of the data provider for the app of docs/endpoints.md, and checks what it returns.
import assert from 'node:assert/strict';
import { by, page, provider, refused } from './provider.mjs';

const titles = ({ data }) => data.map(({ title }) => title);
const all = { pagination: page(1, 25), sort: by('title', 'ASC'), filter: {} };

const { data: ada } = await provider.create('authors', { data: { name: 'Ada' } });
const { data: eve } = await provider.create('authors', { data: { name: 'Eve' } });
const { data: tag } = await provider.create('tags', { data: { name: 'new' } });
const books = [];
for (const number of [0, 1, 2, 3, 4]) {
    const data = { title: `Book ${number}`, pages: number, author_id: number % 2 ? eve.id : ada.id };
    books.push((await provider.create('books', { data })).data);
}
const ids = books.map(({ id }) => id);
assert.deepEqual([books[0].status, books[0].created_by, books[0].version], ['draft', 'ann', 1]);

// Lists, whose total comes from Content-Range.
const second = await provider.getList('books', {
    pagination: page(2, 2), sort: by('title', 'DESC'), filter: { status: 'draft' },
});
assert.deepEqual([titles(second), second.total], [['Book 2', 'Book 1'], 5]);
assert.equal((await provider.getList('tags', { ...all, sort: by('name', 'ASC') })).total, 1);
assert.deepEqual(titles(await provider.getMany('books', { ids: [ids[3], ids[1]] })).sort(), ['Book 1', 'Book 3']);
const related = await provider.getManyReference('books', { ...all, target: 'author_id', id: eve.id });
assert.deepEqual([titles(related), related.total], [['Book 1', 'Book 3'], 2]);
assert.deepEqual((await provider.getOne('authors', { id: ada.id })).data, ada);

// A form sends back the whole row, with the fields that nobody can change.
const { data: changed } = await provider.update('books', {
    id: ids[0], data: { ...books[0], title: 'Changed', pages: null }, previousData: books[0],
});
assert.deepEqual([changed.title, changed.pages, changed.version], ['Changed', null, 2]);
const many = await provider.updateMany('books', { ids: [ids[1], ids[2]], data: { status: 'ready' } });
assert.deepEqual(many.data, [ids[1], ids[2]]);
assert.equal((await provider.getList('books', { ...all, filter: { status: ['ready'] } })).total, 2);

// Books are deleted softly, tags are removed.
assert.equal((await provider.delete('books', { id: ids[0], previousData: changed })).data.id, ids[0]);
assert.deepEqual((await provider.deleteMany('books', { ids: [ids[1], ids[2]] })).data, [ids[1], ids[2]]);
assert.deepEqual(titles(await provider.getList('books', all)), ['Book 3', 'Book 4']);
assert.equal((await provider.delete('tags', { id: tag.id, previousData: tag })).data.id, tag.id);
assert.equal((await refused(provider.getOne('tags', { id: tag.id }))).code, 'not_found');
assert.equal((await refused(provider.getOne('books', { id: ids[0] }))).code, 'not_found');
const bad = await refused(provider.getList('books', { ...all, filter: { titel: 'x' } }));
assert.deepEqual([bad.status, bad.errors.map(({ loc }) => loc)], [422, [['query', 'filter', 'titel']]]);
