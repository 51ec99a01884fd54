"""Random SQLAlchemy statements: every kind of join, subqueries, unions, functions, text in every slot, writes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from sqlalchemy import (
    CTE,
    Integer,
    String,
    and_,
    bindparam,
    case,
    cast,
    column,
    delete,
    except_,
    exists,
    func,
    insert,
    intersect,
    literal,
    literal_column,
    not_,
    or_,
    select,
    text,
    true,
    union,
    union_all,
    update,
    values,
)
from sqlalchemy.orm import (
    aliased,
    contains_eager,
    defer,
    joinedload,
    load_only,
    selectin_polymorphic,
    selectinload,
    subqueryload,
    undefer,
    with_expression,
    with_loader_criteria,
    with_polymorphic,
)
from sqlalchemy.sql import ColumnElement

from .people import Asset, CoreRouter, Country, Doc, Event, Person, Router, Tag, Visit, person_tags

MODELS: tuple[Any, ...] = (Person, Person, Doc, Doc, Tag, Asset, Router, CoreRouter, Country, Event, Visit)
NUMBERS = {
    Person: ("id", "age", "boss_id", "doc_count"),
    Doc: ("id", "size", "person_id"),
    Tag: ("id",),
    Asset: ("id", "owner_id"),
    Router: ("id", "ports", "owner_id"),
    CoreRouter: ("id", "level", "ports"),
    Country: ("id",),
    Event: ("id",),
    Visit: ("id",),
}
TEXTS = {
    Person: "name",
    Doc: "title",
    Tag: "label",
    Asset: "name",
    Router: "name",
    CoreRouter: "name",
    Country: "name",
    Event: "what",
    Visit: "guest",
}
RELATED = {
    Person: ("docs", "tags", "boss", "staff", "country"),
    Doc: ("person",),
    Tag: ("people",),
    Asset: ("owner",),
    Router: ("owner",),
    CoreRouter: ("owner",),
    Country: ("people",),
    Event: (),
    Visit: (),
}


class Maker:
    """Makes one random statement after another; the same seed makes the same ones."""

    def __init__(self, seed: int, dialect: str) -> None:
        self.random = Random(seed)
        self.dialect = dialect

    # What statements are made of

    def model(self) -> Any:
        return self.random.choice(MODELS)

    def entity(self, model: Any) -> Any:
        return aliased(model) if self.random.random() < 0.3 else model

    def number(self, model: Any, entity: Any) -> Any:
        return getattr(entity, self.random.choice(NUMBERS[model]))

    def text(self, model: Any, entity: Any) -> Any:
        return getattr(entity, TEXTS[model])

    def constant(self) -> Any:
        return self.random.choice((0, 1, 2, 100, 102, 103, 200, 203, 301, 305))

    def pattern(self) -> str:
        return self.random.choice(("a!%", "b!%", "%doc%", "%1%", "country%", "%!%"))

    def condition(self, model: Any, entity: Any, depth: int) -> ColumnElement[bool]:
        pick = self.random.randrange(13 if depth > 0 else 7)
        if pick == 0:
            return self.number(model, entity) > self.constant()
        if pick == 1:
            return self.text(model, entity).like(self.pattern())
        if pick == 2:
            return self.number(model, entity).in_([self.constant(), self.constant(), 101])
        if pick == 3:
            return or_(self.number(model, entity).is_(None), self.text(model, entity) != "a!person 101")
        if pick == 4:
            return not_(self.number(model, entity) == self.constant())
        if pick == 5:
            return func.length(self.text(model, entity)) > 3
        if pick == 6:
            return and_(entity.id > 0, case((entity.id > 101, True), else_=entity.id < 300))
        if pick in (7, 8) and RELATED[model]:
            return self.through(model, entity, depth - 1)
        if pick == 9:
            return entity.id.in_(self.ids(depth - 1))
        if pick == 10:
            return self.number(model, entity) >= self.scalar(depth - 1)
        if pick == 11:
            other = self.model()
            inner = aliased(other)
            return exists().where(inner.id == entity.id, self.condition(other, inner, depth - 1))
        return self.random.choice((and_, or_))(
            self.condition(model, entity, depth - 1), self.condition(model, entity, depth - 1)
        )

    def through(self, model: Any, entity: Any, depth: int) -> ColumnElement[bool]:
        name = self.random.choice(RELATED[model])
        attribute = getattr(entity, name)
        target = attribute.property.mapper.class_
        if self.random.random() < 0.3:
            alias = aliased(target)
            attribute, inner = attribute.of_type(alias), alias
        else:
            inner = target
        condition = self.condition(target, inner, 0) if self.random.random() < 0.7 else None
        there = attribute.any if attribute.property.uselist else attribute.has
        found: ColumnElement[bool] = there() if condition is None else there(condition)
        return found if self.random.random() < 0.7 else ~found

    def ids(self, depth: int) -> Any:
        model = self.model()
        entity = self.entity(model)
        return select(entity.id).where(self.condition(model, entity, depth))

    def scalar(self, depth: int) -> Any:
        model = self.model()
        entity = self.entity(model)
        function = self.random.choice((func.max, func.min, func.count, func.sum))
        inner = select(function(self.number(model, entity)))
        if self.random.random() < 0.6:
            inner = inner.where(self.condition(model, entity, depth))
        return inner.scalar_subquery()

    # Reads

    def read(self) -> Any:
        kinds: list[Callable[[], Any]] = [
            self.entities, self.entities, self.columns, self.columns, self.joined, self.joined, self.joined,
            self.aggregated, self.compound, self.within, self.common, self.recursive, self.explicit_join,
            self.explicit_join, self.full, self.loaded, self.loaded, self.polymorphic, self.valued, self.windowed,
            self.lateral, self.expression, self.tables, self.nothing_of_its_own,
        ]  # fmt: skip
        return self.random.choice(kinds)()

    def entities(self) -> Any:
        model = self.model()
        entity = self.entity(model)
        statement = select(entity).where(self.condition(model, entity, 3))
        if self.random.random() < 0.3:
            statement = statement.order_by(entity.id).limit(3).offset(self.random.randrange(2))
        if self.random.random() < 0.1:
            statement = statement.with_for_update(of=entity) if self.dialect == "postgresql" else statement
        return statement

    def columns(self) -> Any:
        model = self.model()
        entity = self.entity(model)
        chosen = [self.number(model, entity), self.text(model, entity).label("said")]
        if self.random.random() < 0.5:
            chosen.append(self.scalar(2).label("other"))
        if self.random.random() < 0.3:
            chosen.append(cast(entity.id, String))
        if self.random.random() < 0.2:
            chosen.append(func.coalesce(self.number(model, entity), literal(7)))
        statement = select(*chosen).where(self.condition(model, entity, 2))
        return statement.distinct() if self.random.random() < 0.2 else statement

    def joined(self) -> Any:
        model = self.random.choice([each for each in MODELS if RELATED[each]])
        entity = self.entity(model)
        name = self.random.choice(RELATED[model])
        attribute = getattr(entity, name)
        target = attribute.property.mapper.class_
        outer = self.random.random() < 0.4
        if target is model or self.random.random() < 0.4:
            other = aliased(target)
            to: Any = attribute.of_type(other)
        else:
            other, to = target, attribute
        if self.random.random() < 0.3:
            to = to.and_(self.condition(target, other, 0))
        statement = select(entity, other) if self.random.random() < 0.5 else select(entity.id, other.id)
        statement = statement.join(to, isouter=outer)
        if self.random.random() < 0.5:
            statement = statement.where(self.condition(model, entity, 1))
        return statement

    def aggregated(self) -> Any:
        if self.random.random() < 0.5:
            return (
                select(Person, func.count(Doc.id))
                .join(Person.docs, isouter=self.random.random() < 0.5)
                .group_by(Person.id)
                .having(func.count(Doc.id) >= self.random.randrange(2))
                if self.dialect == "sqlite" or self.random.random() < 0
                else select(Person.id, Person.name, func.count(Doc.id))
                .join(Person.docs, isouter=self.random.random() < 0.5)
                .group_by(Person.id)
            )
        model = self.model()
        entity = self.entity(model)
        statement = select(func.count(), func.max(self.number(model, entity)), func.min(self.text(model, entity)))
        return statement.select_from(entity).where(self.condition(model, entity, 2))

    def compound(self) -> Any:
        def part() -> Any:
            model = self.model()
            entity = self.entity(model)
            return select(entity.id, self.text(model, entity)).where(self.condition(model, entity, 1))

        made = self.random.choice((union, union_all, intersect, except_))(part(), part())
        if self.random.random() < 0.4:
            inner = made.subquery()
            return select(inner.c.id, func.count()).group_by(inner.c.id)
        return made

    def within(self) -> Any:
        model = self.model()
        entity = self.entity(model)
        inner = select(entity).where(self.condition(model, entity, 1)).subquery()
        if self.random.random() < 0.5:
            over = aliased(model, inner)
            return select(over).where(self.condition(model, over, 0) if model is not Person else over.id > 0)
        first = next(iter(inner.c))
        return select(first, func.count()).select_from(inner).group_by(first)

    def common(self) -> Any:
        model = self.model()
        entity = self.entity(model)
        base = select(entity.id.label("id"), self.text(model, entity).label("said")).where(
            self.condition(model, entity, 1)
        )
        cte: CTE = base.cte("found")
        other = self.model()
        outer = self.entity(other)
        return select(outer.id, cte.c.said).join(cte, cte.c.id == outer.id, isouter=self.random.random() < 0.4)

    def recursive(self) -> Any:
        top = select(Person.id, Person.name, literal(0).label("depth")).where(Person.boss_id.is_(None))
        chain = top.cte("chain", recursive=True)
        below = aliased(Person)
        chain = chain.union_all(
            select(below.id, below.name, chain.c.depth + 1).join(chain, below.boss_id == chain.c.id)
        )
        return select(chain.c.name, chain.c.depth).where(chain.c.depth >= self.random.randrange(2))

    def explicit_join(self) -> Any:
        left, right = self.model(), self.model()
        one, two = aliased(left), aliased(right)
        if self.random.random() < 0.4:
            one = left
        on = self.random.choice(
            (one.id == two.id, one.id <= two.id, self.text(left, one).like(self.text(right, two)), two.id == 101)
        )
        joins = self.random.choice(("join", "outerjoin"))
        source = getattr(_orm_join(one), joins)(one, two, on)
        chosen = self.random.choice(([one.id], [two.id], [one.id, two.id], [func.count()], [func.count(two.id)]))
        statement = select(*chosen).select_from(source)
        if self.random.random() < 0.4:
            inner = statement.subquery()
            return select(func.count()).select_from(inner)
        if self.random.random() < 0.3:
            return select(Country.id).where(exists(statement))
        return statement

    def full(self) -> Any:
        left, right = self.random.choice(((Person, Doc), (Doc, Tag), (Person, Tag), (Router, Doc), (Country, Person)))
        one = aliased(left)
        two = aliased(right) if self.random.random() < 0.5 else right
        if self.dialect == "sqlite" or Router in (left, right):
            return select(one.id, two.id).outerjoin(two, one.id == two.id)
        statement = select(one.id, self.text(right, two)).join(two, one.id == two.id, full=True)
        return statement.where(one.id > 0) if self.random.random() < 0.3 else statement

    def loaded(self) -> Any:
        model = self.random.choice([each for each in MODELS if RELATED[each]])
        name = self.random.choice(RELATED[model])
        attribute = getattr(model, name)
        target = attribute.property.mapper.class_
        way = self.random.choice((joinedload, selectinload, subqueryload))
        path = attribute
        if self.random.random() < 0.3:
            path = attribute.and_(self.condition(target, target, 0))
        option = way(path)
        if RELATED[target] and self.random.random() < 0.4:
            option = getattr(option, way.__name__)(getattr(target, self.random.choice(RELATED[target])))
        statement = select(model).options(option).where(self.condition(model, model, 1))
        if self.random.random() < 0.3:
            statement = statement.order_by(model.id).limit(3)
        if self.random.random() < 0.2:
            statement = statement.options(with_loader_criteria(Doc, Doc.size > 0, include_aliases=True))
        return statement

    def polymorphic(self) -> Any:
        pick = self.random.randrange(5)
        if pick == 0:
            every = with_polymorphic(Asset, [Router, CoreRouter], flat=self.random.random() < 0.5)
            return select(every).where(or_(every.Router.ports > 100, every.name.like(self.pattern())))
        if pick == 1:
            every = with_polymorphic(Asset, "*", aliased=True)
            return select(every.id, every.CoreRouter.level)
        if pick == 2:
            return select(Asset).options(selectin_polymorphic(Asset, [Router, CoreRouter]))
        if pick == 3:
            alias = aliased(CoreRouter)
            return select(alias.name, alias.level, alias.ports).where(alias.owner.has(Person.age > 0))
        return select(Event).where(Event.what.like("%!%"))

    def valued(self) -> Any:
        made = values(column("key", Integer), column("word", String), name="given").data([(101, "x"), (201, "y")])
        model = self.model()
        return select(model.id, made.c.word).join(made, made.c.key == model.id, isouter=self.random.random() < 0.5)

    def windowed(self) -> Any:
        model = self.model()
        entity = self.entity(model)
        return select(
            entity.id,
            func.row_number().over(order_by=entity.id),
            func.count(entity.id).over(),
            func.sum(entity.id).filter(entity.id > 101).over(order_by=entity.id),
        ).where(self.condition(model, entity, 1))

    def lateral(self) -> Any:
        inner = select(func.count(Doc.id).label("docs"), func.max(Doc.title).label("last")).where(
            Doc.person_id == Person.id
        )
        if self.dialect == "sqlite":
            return select(Person.id, inner.correlate(Person).with_only_columns(func.count(Doc.id)).scalar_subquery())
        beside = inner.lateral("beside")
        return select(Person.name, beside.c.docs, beside.c.last).join(beside, true())

    def expression(self) -> Any:
        pick = self.random.randrange(3)
        if pick == 0:
            return select(Person).options(with_expression(Person.extra, Person.doc_count + 1))
        if pick == 1:
            return select(Person).options(with_expression(Person.extra, self.scalar(1)), defer(Person.age))
        return select(Doc).join(Doc.person).options(contains_eager(Doc.person).options(undefer(Person.doc_count)))

    def tables(self) -> Any:
        pick = self.random.randrange(3)
        if pick == 0:
            return select(Person.id, person_tags.c.tag_id).join(person_tags, person_tags.c.person_id == Person.id)
        if pick == 1:
            return (
                select(Person.name, func.count(Tag.id))
                .join(Person.tags)
                .where(Tag.people.any(Person.age > 20))
                .group_by(Person.id, Person.name)
            )
        return select(Person).options(load_only(Person.name), selectinload(Person.tags).load_only(Tag.label))

    def nothing_of_its_own(self) -> Any:
        return select(exists(self.ids(2)), self.scalar(2), self.scalar(1).label("again"))

    # Text where it can be put

    def with_text(self) -> Any:
        """A read with a fragment of SQL in a place that takes one, which reads what it wants."""
        others = "SELECT name FROM rnd_people"
        fragments: list[Callable[[], Any]] = [
            lambda: select(Doc.title).where(text("1=1 OR 1=1")),
            lambda: select(Doc.title.label("n")).suffix_with(f"UNION ALL {others}"),
            lambda: self.deep(select(Doc.title.label("n")).suffix_with(f"UNION ALL {others}")),
            lambda: self.deep(select(Doc.title.label("n")).with_statement_hint(f"UNION ALL {others}")),
            lambda: self.deep(select(Doc.title.label("n")).prefix_with("DISTINCT ON (1) *, ")),
            lambda: self.deep(select(literal_column(f"({others} LIMIT 1)").label("n")).select_from(Doc)),
            lambda: self.deep(select(Doc.title.label("n")).order_by(text(f"({others} LIMIT 1)")).limit(2)),
            lambda: self.deep(select(func.max(text(f"({others} LIMIT 1)")).label("n")).select_from(Doc)),
            lambda: select(Doc.title).where(Doc.title.op("= '' OR 1=1 OR title =")("x")),
            lambda: select(Doc.title).where(Doc.id.in_(text("SELECT id FROM rnd_people").columns(column("id")))),
            lambda: select(Doc.title).join(Person, text("1=1 OR 1=1")),
            lambda: select(Doc.title).group_by(text(f"title, ({others} LIMIT 1)")),
            lambda: select(Doc.title).with_hint(Doc, f", rnd_people UNION ALL {others} --"),
            lambda: union_all(select(Doc.title.label("n")), select(literal_column(f"({others} LIMIT 1)").label("n"))),
            lambda: select(Doc.title.label("n")).cte("c").suffix_with(f", d AS ({others})").select(),
            lambda: select(func.max(Doc.title)).having(text("1=1 OR 1=1")),
            lambda: select(Doc).options(joinedload(Doc.person.and_(literal_column("1=1 OR 1=1")))),
            lambda: select(Doc).options(with_loader_criteria(Doc, literal_column("1=1 OR 1=1"))),
            lambda: select(Person).options(with_expression(Person.extra, literal_column(f"({others} LIMIT 1)"))),
            lambda: select(Doc).from_statement(text("SELECT * FROM rnd_docs")),
            lambda: text(f"{others}"),
            lambda: select(column("name")).select_from(text("rnd_people")),
        ]
        return self.random.choice(fragments)()

    def deep(self, inner: Any) -> Any:
        """The statement within another, at a random place."""
        pick = self.random.randrange(4)
        if pick == 0:
            return select(inner.subquery().c.n)
        if pick == 1:
            return select(inner.cte("deep").c.n)
        if pick == 2:
            return union_all(select(Tag.label.label("n")), inner.subquery().select())
        return select(Tag.label).where(Tag.label.in_(inner))

    # Writes

    def write(self) -> Callable[[Any], Any]:
        """A write, as a function of the session."""
        kinds = (
            self.update_by_condition, self.delete_by_condition, self.update_from, self.insert_of_subselect,
            self.insert_from_select, self.flush_of_subselect, self.update_by_keys, self.flushed_change,
            self.update_inherited, self.returned,
        )  # fmt: skip
        return self.random.choice(kinds)()

    def _written(self) -> Any:
        return self.random.choice((Person, Doc, Tag, Doc, Person))

    def _changes(self, model: Any) -> dict[str, Any]:
        given: dict[Any, Any] = {Person: {"age": self.scalar(1)}, Doc: {"size": self.scalar(1)}, Tag: {"label": "new"}}
        plain: dict[Any, Any] = {Person: {"name": "new"}, Doc: {"title": "new"}, Tag: {"label": "new"}}
        if self.random.random() < 0.5:
            return dict(plain[model])
        if model is Doc:
            return {"size": func.coalesce(given[model]["size"], 0)}
        return dict(given[model])

    def update_by_condition(self) -> Callable[[Any], Any]:
        model = self._written()
        statement = update(model).values(self._changes(model)).where(self.condition(model, model, 2))
        return lambda session: session.execute(statement, execution_options={"synchronize_session": False})

    def delete_by_condition(self) -> Callable[[Any], Any]:
        condition = self.condition(Doc, Doc, 2)
        return lambda session: session.execute(delete(Doc).where(condition))

    def update_from(self) -> Callable[[Any], Any]:
        statement = update(Doc).values(title=Person.name).where(Doc.person_id == Person.id)
        if self.random.random() < 0.5:
            statement = update(Person).values(name=Doc.title).where(Doc.id == Person.id, Doc.size > 0)
        return lambda session: session.execute(statement, execution_options={"synchronize_session": False})

    def insert_of_subselect(self) -> Callable[[Any], Any]:
        highest = select(func.max(Doc.size) + 1).scalar_subquery()
        statement = insert(Doc).values(id=900, title="made", size=highest, tenant_id=bindparam("whose", "a"))
        if self.random.random() < 0.5:
            statement = insert(Doc).values(id=900, title="made", size=highest, tenant_id="a")
        return lambda session: session.execute(statement)

    def insert_from_select(self) -> Callable[[Any], Any]:
        source = select(Person.id + 600, Person.name, Person.id, Person.tenant_id).where(
            self.condition(Person, Person, 1)
        )
        statement = insert(Doc).from_select(["id", "title", "size", "tenant_id"], source)
        return lambda session: session.execute(statement)

    def flush_of_subselect(self) -> Callable[[Any], Any]:
        highest = select(func.max(Doc.title)).where(self.condition(Doc, Doc, 1)).scalar_subquery()

        def work(session: Any) -> None:
            session.add(Tag(id=901, label=func.coalesce(highest, "none"), tenant_id="a"))
            held = session.get(Doc, 101)
            held.title = func.coalesce(select(func.max(Person.name)).scalar_subquery(), "none")
            session.flush()

        return work

    def update_by_keys(self) -> Callable[[Any], Any]:
        rows = [{"id": key, "title": f"new {key}"} for key in (100, 101, 103)]
        return lambda session: session.execute(update(Doc), rows)

    def flushed_change(self) -> Callable[[Any], Any]:
        def work(session: Any) -> None:
            person = session.get(Person, 101)
            person.name = "changed"
            person.tags.append(Tag(id=902, label="made", tenant_id="a"))
            person.docs = person.docs[:1]
            session.flush()

        return work

    def update_inherited(self) -> Callable[[Any], Any]:
        statement = self.random.choice(
            (
                update(Router).values(ports=7).where(Router.ports > 100),
                update(Asset).values(name="new").where(Asset.id > 101),
                update(Router).values(ports=7).where(Router.id.in_(select(CoreRouter.id))),
                update(CoreRouter).values(level=select(func.max(CoreRouter.level)).scalar_subquery() + 1),
                delete(CoreRouter).where(CoreRouter.level > 101),
                update(Visit).values(guest="new"),
            )
        )
        return lambda session: session.execute(statement, execution_options={"synchronize_session": False})

    def returned(self) -> Callable[[Any], Any]:
        statement = update(Doc).values(title="new").where(self.condition(Doc, Doc, 1)).returning(Doc)
        if self.random.random() < 0.5:
            return lambda session: session.scalars(select(Doc).from_statement(statement)).all()
        made = insert(Doc).values(id=903, title="made", size=1, tenant_id="a").returning(Doc)
        return lambda session: session.scalars(select(Doc).from_statement(made)).all()


def _orm_join(_: Any) -> Any:
    import sqlalchemy.orm as orm

    return orm
